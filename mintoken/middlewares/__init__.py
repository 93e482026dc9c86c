"""Middlewares: one per file, outermost first: context, errors, auth, quota."""
