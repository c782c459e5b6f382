"""Write a GGUF file, version 3: for examples, tests and experiments; forq saves by patching a copy instead."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from forq.checkpoints.tensor import byte_view

_ALIGNMENT = 32


def write_gguf(
    path: Path, values: Mapping[str, Any], tensors: Sequence[tuple[str, int, tuple[int, ...], Tensor]]
) -> None:
    """Write values and tensors.

    Args:
        values: texts, whole numbers (uint32), floats (float32), truth values, and lists of one of these.
        tensors: name, number of the type, shape with the innermost dimension last, and the bytes as any tensor.
    """
    raw = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(values))]
    for key, value in values.items():
        raw.append(_text(key) + _value(value))
    at = 0
    for name, kind, shape, tensor in tensors:
        raw.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, at))
        at += -(-math.prod(tensor.shape) * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT
    header = b"".join(raw)
    with path.open("wb") as stream:
        stream.write(header + bytes(-len(header) % _ALIGNMENT))
        for _, _, _, tensor in tensors:
            view = byte_view(tensor)
            stream.write(view)
            stream.write(bytes(-len(view) % _ALIGNMENT))


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _scalar(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return (4, struct.pack("<I", value)) if value >= 0 else (5, struct.pack("<i", value))
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    return 8, _text(value)


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        each = [_scalar(one) for one in value]
        return struct.pack("<IIQ", 9, each[0][0], len(each)) + b"".join(one for _, one in each)
    kind, one = _scalar(value)
    return struct.pack("<I", kind) + one
