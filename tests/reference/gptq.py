"""GPTQ from the raw bytes of a folder, in float64 NumPy, each code cut out on its own."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

DTYPES = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1", "F16": "<f2", "F32": "<f4"}


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of the folder, by name; bfloat16 ones as float32."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        for name, entry in json.loads(data[8 : 8 + length]).items():
            if name == "__metadata__":
                continue
            start, stop = (8 + length + at for at in entry["data_offsets"])
            if entry["dtype"] == "BF16":
                wide = np.frombuffer(data[start:stop], "<u2").astype(np.uint32) << 16
                found[name] = wide.view(np.float32).reshape(entry["shape"])
            else:
                found[name] = np.frombuffer(data[start:stop], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return found


def modules(folder: Path) -> list[str]:
    """Names of the quantized layers."""
    return sorted(name.removesuffix(".qweight") for name in tensors(folder) if name.endswith(".qweight"))


def dequantise(folder: Path, module: str) -> np.ndarray:
    """float64 (out, in) of one layer: w = (q − z)·s, each code cut out of its word on its own."""
    held, config = tensors(folder), json.loads((folder / "config.json").read_text())["quantization_config"]
    bits, stored = config["bits"], config.get("checkpoint_format", "gptq")
    words = held[f"{module}.qweight"]
    zeros = held[f"{module}.qzeros"]
    offset = {"gptq": 1, "gptq_v2": 0}[stored]
    scales = held[f"{module}.scales"].astype(np.float64)
    group_of = held[f"{module}.g_idx"]
    points = np.array([cut(row, bits) for row in zeros]) + offset
    result = np.empty((words.shape[1], words.shape[0] * 32 // bits))
    for out in range(len(result)):
        code = np.array(cut(words[:, out], bits))
        result[out] = (code - points[group_of, out]) * scales[group_of, out]
    return result


def cut(words: np.ndarray, bits: int) -> list[int]:
    """Codes of a row of 32-bit words, which is one long number with the first code in its lowest bits."""
    number = sum((int(word) & 0xFFFFFFFF) << 32 * place for place, word in enumerate(words))
    return [number >> bits * place & (1 << bits) - 1 for place in range(len(words) * 32 // bits)]
