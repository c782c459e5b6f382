"""compressed-tensors from the raw bytes of a folder, in float64 NumPy, each code cut out on its own."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

DTYPES = {"I64": "<i8", "I32": "<i4", "I8": "i1", "F16": "<f2", "F32": "<f4"}


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
    return sorted(name.removesuffix(".weight_scale") for name in tensors(folder) if name.endswith(".weight_scale"))


def dequantise(folder: Path, module: str) -> np.ndarray:
    """float64 (out, in) of one layer: w = (q − z)·s with q and z signed."""
    held = {name.removeprefix(f"{module}."): value for name, value in tensors(folder).items()}
    scales = held["weight_scale"].astype(np.float64)
    if "weight_packed" in held:
        rows, columns = held["weight_shape"]
        # Of the widths there are the one whose rows take so many words.
        (bits,) = (b for b in (2, 4, 8) if -(-columns * b // 32) == held["weight_packed"].shape[1])
        codes = np.array([cut(row, bits)[:columns] for row in held["weight_packed"]])
    else:
        codes, bits = held["weight"].astype(np.int64), 8
        rows, columns = codes.shape
    zeros = held.get("weight_zero_point", np.zeros((1, 1), np.int8))
    if zeros.dtype == np.int32:
        zeros = np.array([cut(column, bits)[:rows] for column in zeros.T]).T
    group_of = held.get("weight_g_idx", np.arange(columns) // group_size(folder, module, columns))
    scales = np.broadcast_to(scales.reshape(len(scales), -1), (rows, scales.size // len(scales)))
    zeros = np.broadcast_to(zeros.reshape(len(zeros), -1), scales.shape).astype(np.float64)
    return (codes - zeros[:, group_of]) * scales[:, group_of]


def group_size(folder: Path, module: str, columns: int) -> int:
    """Inputs that share a scale, by the configuration; of several groups the one the scales fit."""
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    scales = tensors(folder)[f"{module}.weight_scale"].shape
    groups = scales[1] if len(scales) == 2 else 1
    sizes = {group["weights"].get("group_size") or columns for group in config["config_groups"].values()}
    (found,) = (size for size in sizes if -(-columns // size) == groups)
    return found


def cut(words: np.ndarray, bits: int) -> list[int]:
    """Signed codes of a row of 32-bit words, which is one long number with the first code in its lowest bits."""
    number = sum((int(word) & 0xFFFFFFFF) << 32 * place for place, word in enumerate(words))
    middle = 1 << bits - 1
    return [(number >> bits * place & (1 << bits) - 1) - middle for place in range(len(words) * 32 // bits)]
