"""bitsandbytes at 8 bits from the raw bytes of a folder, in float64 NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.reference.gptq import tensors


def modules(folder: Path) -> list[str]:
    """Names of the quantized layers."""
    return sorted(name.removesuffix(".SCB") for name in tensors(folder) if name.endswith(".SCB"))


def dequantise(folder: Path, module: str) -> np.ndarray:
    """float64 (out, in) of one layer: code · SCB / 127."""
    held = tensors(folder)
    return held[f"{module}.weight"].astype(np.float64) * held[f"{module}.SCB"].astype(np.float64)[:, None] / 127
