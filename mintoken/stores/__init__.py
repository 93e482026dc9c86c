"""Databases: one per file, each a `base.Store`."""
