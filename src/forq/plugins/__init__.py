"""Plug-ins: a file is its own registration; and functions of a user's own, by name."""
