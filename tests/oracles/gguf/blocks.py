"""Matrices in the types of GGUF: quantized by gguf-py, or random blocks of the types it reads and does not write."""

from __future__ import annotations

import gguf
import numpy as np

Q = gguf.GGMLQuantizationType

_SCALES = {Q.Q2_K: (80, 82), Q.Q3_K: (108,), Q.Q4_K: (0, 2), Q.Q5_K: (0, 2), Q.Q6_K: (208,)}
"""The first bytes of a block's float16 scales, for the types gguf-py does not write."""
_SMALL = {Q.IQ4_NL: 127, Q.IQ4_XS: 127 * 32, Q.IQ3_XXS: 480, Q.IQ3_S: 465, Q.IQ2_XXS: 160, Q.IQ2_XS: 160}
_SMALL |= {Q.IQ2_S: 160, Q.IQ1_S: 16, Q.IQ1_M: 16, Q.TQ1_0: 1, Q.TQ2_0: 2}
"""The same for types with d in front (at the end of ternary ones): the largest weight in units of d."""


def packed(kind: Q, weight: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """A float32 matrix (rows, columns) in a type.

    Returns:
        uint8 (rows, bytes of a row), or floats for F32 and F16. K-quants, types with a table and ternary ones are
        random blocks with small scales of both signs: the values of ``weight`` do not enter.
    """
    if kind not in _SCALES and kind not in _SMALL:
        return gguf.quants.quantize(weight, kind)
    size, nbytes = gguf.GGML_QUANT_SIZES[kind]
    raw = draw.integers(0, 256, (weight.size // size, nbytes), dtype=np.uint8)
    last = (nbytes - 2,) if kind in (Q.TQ1_0, Q.TQ2_0) else (0,)
    for place in _SCALES.get(kind, last):
        scales = (draw.standard_normal(len(raw)) * 0.3 / _SMALL.get(kind, 430)).astype(np.float16)
        if kind == Q.IQ1_M:
            words = raw[:, 48:].view(np.uint16)
            four = scales.view(np.uint16)[:, None] >> np.arange(0, 16, 4, dtype=np.uint16) & 15
            words[:] = words & 0xFFF | four << 12
        else:
            raw[:, place : place + 2] = scales.view(np.uint8).reshape(-1, 2)
    if kind == Q.TQ1_0:
        # A byte that is no fraction of five digits: llama.cpp's fast product may read its last digit otherwise.
        raw[:, :-2] = (np.arange(243) * 256 + 242)[raw[:, :-2] % 243] // 243
    if kind == Q.TQ2_0:
        # Digits are 0, 1 or 2; a fourth is none that a quantizer writes.
        raw[:, :-2] &= ~(raw[:, :-2] >> 1 & raw[:, :-2] & 0x55) & 255
    return raw.reshape(len(weight), -1)
