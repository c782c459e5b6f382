"""What can move: leaves, their domains, and the one place where a move becomes numbers."""
