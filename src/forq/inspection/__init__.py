"""What a checkpoint needs and can move: memory, speed, coverage."""
