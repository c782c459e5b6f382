"""Attack methods. One method, one file."""
