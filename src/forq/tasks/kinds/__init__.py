"""The kinds of task: completion, choice, classification, generation, denoising."""
