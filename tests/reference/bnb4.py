"""bitsandbytes at 4 bits from the raw bytes of a folder, in float64 NumPy, from the description of the format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.reference.gptq import tensors

MARK = ".weight.quant_state.bitsandbytes__"


def modules(folder: Path) -> list[str]:
    """Names of the quantized layers."""
    return sorted(name.partition(MARK)[0] for name in tensors(folder) if MARK in name)


def dequantise(folder: Path, module: str) -> np.ndarray:
    """float64 (out, in) of one layer: the level of each code times the magnitude of its block."""
    held = tensors(folder)
    (text,) = (name for name in held if name.startswith(f"{module}{MARK}"))
    said, weight = json.loads(bytes(held[text])), f"{module}.weight"
    rows, columns = said["shape"]
    codes = np.array([nibble for byte in held[weight].ravel().tolist() for nibble in (byte >> 4, byte & 15)])
    high = held[f"{weight}.absmax"].astype(np.float64)
    if "nested_blocksize" in said:
        level = held[f"{weight}.nested_quant_map"].astype(np.float64)[held[f"{weight}.absmax"]]
        block = np.arange(len(level)) // said["nested_blocksize"]
        high = level * held[f"{weight}.nested_absmax"].astype(np.float64)[block] + said["nested_offset"]
    values = held[f"{weight}.quant_map"].astype(np.float64)[codes]
    values *= high[np.arange(len(codes)) // said["blocksize"]]
    return values.reshape(rows, columns)
