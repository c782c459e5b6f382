"""Diffusion models: the denoiser, its pipeline, and what frozen encoders make of the data."""
