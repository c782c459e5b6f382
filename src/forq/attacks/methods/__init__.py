"""Attack methods, one per file."""
