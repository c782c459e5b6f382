"""Estimators: which probes a step asks for, and what their losses say of the gradient. One idea, one file."""
