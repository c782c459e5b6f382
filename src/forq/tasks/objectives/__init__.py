"""From a batch to a number: cross-entropy on answer tokens, and rewards of a user's own."""
