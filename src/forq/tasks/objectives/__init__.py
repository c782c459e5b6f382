"""Training objectives: cross-entropy on answer tokens, and reward functions."""
