"""Runs: the loop, its journal, the files of a run, replay and resume."""
