"""What ``forq inspect`` reports: the parameters of a checkpoint, what can move, and the memory and time of tuning."""
