"""Presets: a method of a paper, or ours, as a named set of settings. One recipe, one file."""
