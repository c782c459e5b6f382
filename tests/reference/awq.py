"""AWQ (layout gemm) from the raw bytes of a folder, in float64 NumPy, each code cut out on its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.reference.gptq import modules, tensors

__all__ = ["dequantise", "modules", "tensors"]

# Nibble p of a word, counted from its lowest, holds this one of the word's eight outputs.
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def dequantise(folder: Path, module: str) -> np.ndarray:
    """float64 (out, in) of one layer: w = (q − z)·s."""
    held, config = tensors(folder), json.loads((folder / "config.json").read_text())["quantization_config"]
    codes, zeros = (np.array([cut(row) for row in held[f"{module}.{kind}"]]) for kind in ("qweight", "qzeros"))
    size = config["group_size"] if config["group_size"] != -1 else len(codes)
    group_of = np.arange(len(codes)) // size
    scales = held[f"{module}.scales"].astype(np.float64)
    return ((codes - zeros[group_of]) * scales[group_of]).T


def cut(words: np.ndarray) -> list[int]:
    """The outputs' codes, in order, of a row of 32-bit words."""
    found = [0] * (8 * len(words))
    for at, word in enumerate(words):
        for place, output in enumerate(ORDER):
            found[8 * at + output] = (int(word) & 0xFFFFFFFF) >> 4 * place & 15
    return found
