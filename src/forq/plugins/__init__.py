"""Plug-ins, registered by their files alone, and users' own functions and networks, loaded by name."""
