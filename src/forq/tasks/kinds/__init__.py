"""What tasks are made of: completion, choice, classification, generation, denoising."""
