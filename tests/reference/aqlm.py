"""AQLM from the raw bytes of a folder, in float64 NumPy, one vector at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.reference.gptq import tensors


def modules(folder: Path) -> list[str]:
    """Names of the quantized layers."""
    return sorted(name.removesuffix(".codes") for name in tensors(folder) if name.endswith(".codes"))


def dequantise(folder: Path, module: str) -> np.ndarray:
    """float64 (out, in) of one layer: every block a sum of vectors, times the scale of its row of blocks."""
    held, config = tensors(folder), json.loads((folder / "config.json").read_text())["quantization_config"]
    codes, scales = held[f"{module}.codes"], held[f"{module}.scales"].astype(np.float64)
    books = held[f"{module}.codebooks"].astype(np.float64)
    tall, wide = config["out_group_size"], config["in_group_size"]
    result = np.zeros((codes.shape[0] * tall, codes.shape[1] * wide))
    for row, column in np.ndindex(codes.shape[:2]):
        block = result[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
        for number, code in enumerate(codes[row, column]):
            block += books[number, int(code) % len(books[number])]
        block *= scales[row, 0, 0, 0]
    return result
