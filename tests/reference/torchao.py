"""torchao's flattened weights from the raw bytes of a folder, in float64 NumPy, block by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.reference.gptq import tensors


def modules(folder: Path) -> list[str]:
    """Names of the quantized layers."""
    end = "._weight_qdata"
    return sorted(name.removesuffix(end) for name in tensors(folder) if name.endswith(end))


def dequantise(folder: Path, module: str) -> np.ndarray:
    """float64 (out, in) of one layer: w = (q − z)·s, each block on its own."""
    held = tensors(folder)
    codes, scales, zeros = (held[f"{module}._weight_{kind}"] for kind in ("qdata", "scale", "zero_point"))
    tall, wide = (size // count for size, count in zip(codes.shape, scales.shape, strict=True))
    result = codes.astype(np.float64)
    for row, column in np.ndindex(scales.shape):
        block = result[row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
        block -= float(zeros[row, column])
        block *= float(scales[row, column])
    return result
