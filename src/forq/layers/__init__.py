"""Quantized weights in one canonical form, the kernels that multiply by them, and the leaves that move."""
