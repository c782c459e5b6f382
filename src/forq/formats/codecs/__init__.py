"""Bit layouts and settings that formats read and write; no plug-ins."""
