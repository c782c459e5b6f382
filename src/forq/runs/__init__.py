"""Runs: the training loop, the journal, the files of a run, replay and resume."""
