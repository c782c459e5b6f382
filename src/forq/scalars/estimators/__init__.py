"""Estimators: the probes of a step, and the gradient estimate from their losses. One idea, one file."""
