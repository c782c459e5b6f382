"""Matrices in the types of GGUF: quantized by gguf-py, or random blocks of the types it reads and does not write."""

from __future__ import annotations

import gguf
import numpy as np

Q = gguf.GGMLQuantizationType

_SCALES = {Q.Q2_K: (80, 82), Q.Q3_K: (108,), Q.Q4_K: (0, 2), Q.Q5_K: (0, 2), Q.Q6_K: (208,)}
"""The first bytes of a block's float16 scales, for the types gguf-py does not write."""


def packed(kind: Q, weight: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A float32 matrix (rows, columns) in a type.

    Returns:
        uint8 (rows, bytes of a row), or floats for F32 and F16. K-quants are random blocks with small scales of both
        signs: the values of ``weight`` do not enter.
    """
    if kind not in _SCALES:
        return gguf.quants.quantize(weight, kind)
    size, nbytes = gguf.GGML_QUANT_SIZES[kind]
    raw = draw.integers(0, 256, (weight.size // size, nbytes), dtype=np.uint8)
    for place in _SCALES[kind]:
        scales = (draw.standard_normal(len(raw)) * 0.0007).astype(np.float16)
        raw[:, place : place + 2] = scales.view(np.uint8).reshape(-1, 2)
    return raw.reshape(len(weight), -1)
