"""HQQ from a file torch.save wrote, in float64 NumPy, each code cut out of its word on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch


def held(folder: Path) -> dict[str, dict[str, Any]]:
    """Every module's tensors and values, by torch's own reader."""
    found: dict[str, dict[str, Any]] = torch.load(folder / "qmodel.pt", weights_only=True)
    return found


def modules(folder: Path) -> list[str]:
    """Names of the quantized layers."""
    return sorted(name for name, module in held(folder).items() if "W_q" in module)


def dequantise(folder: Path, module: str) -> np.ndarray:
    """float64 (out, in) of one layer: w = (q − z)·s on the reshaped matrix, then the shape of the weight."""
    said = held(folder)[module]
    bits, size, axis, shape = said["nbits"], said["group_size"], said["axis"], tuple(said["shape"])
    packed, a_word = said["W_q"].numpy().astype(np.int64), {8: 1, 4: 2, 3: 10, 2: 4}[bits]
    groups = shape[0] * shape[1] // size
    tall, wide = (groups, size) if axis == 1 else (size, groups)
    codes = np.empty((tall, wide))
    for row in range(tall):
        part, word = divmod(row, len(packed))
        codes[row] = packed[word] >> bits * (a_word - 1 - part) & (1 << bits) - 1
    scales, zeros = (said[kind].double().numpy() for kind in ("scale", "zero"))
    return ((codes - zeros) * scales).reshape(shape)
