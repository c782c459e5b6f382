"""Diffusion models: the denoiser, its pipeline, and data encoded by the frozen components."""
