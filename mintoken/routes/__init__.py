"""Routes: one group of handlers per file."""
