"""Rows of data: read, checked, counted, and put in order."""
