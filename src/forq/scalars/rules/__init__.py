"""Rules: from a gradient estimate to the step that is taken. One idea, one file; they chain."""
