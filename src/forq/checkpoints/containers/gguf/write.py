"""Write a GGUF file, version 3, from tensors that are made one at a time."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from forq.checkpoints.containers.gguf.kinds import BLOCKS, FLOATS
from forq.checkpoints.tensor import byte_view
from forq.errors import FormatError

_ALIGNMENT = 32
_BOOL, _UINT32, _INT32, _FLOAT32, _STRING, _ARRAY = 7, 4, 5, 6, 8, 9

Value = str | bool | int | float | Sequence[str] | Sequence[bool] | Sequence[int] | Sequence[float]
"""Texts, truth values, whole numbers (uint32; int32 below zero and in lists), floats (float32), and lists of them."""

NUMBERS: Mapping[torch.dtype, int] = {dtype: number for number, dtype in FLOATS.items()}
"""Numbers of the plain float types."""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A tensor to write.

    Attributes:
        kind: number of its type.
        shape: innermost dimension last.
        make: its bytes, as any tensor.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        block, count = BLOCKS.get(self.kind), math.prod(self.shape)
        return count * FLOATS[self.kind].itemsize if block is None else count // block.size * block.nbytes


def write(path: Path, values: Mapping[str, Value], tensors: Sequence[Stored]) -> None:
    """Write values and tensors. One tensor is in memory at a time.

    Raises:
        FormatError: a tensor that was made has another size than its type and shape say.
    """
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(values))]
    head += [_text(key) + _value(value) for key, value in values.items()]
    at = 0
    for one in tensors:
        dims = struct.pack(f"<I{len(one.shape)}QIQ", len(one.shape), *one.shape[::-1], one.kind, at)
        head.append(_text(one.name) + dims)
        at += _padded(one.nbytes)
    header = b"".join(head)
    with path.open("wb") as stream:
        stream.write(header.ljust(_padded(len(header)), b"\0"))
        for one in tensors:
            view = byte_view(one.make())
            if len(view) != one.nbytes:
                raise FormatError(f"{one.name}: expected {one.nbytes} bytes, found {len(view)}")
            stream.write(view)
            stream.write(bytes(_padded(len(view)) - len(view)))


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _scalar(value: str | bool | int | float, signed: bool) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return _BOOL, struct.pack("<?", value)
    if isinstance(value, int):
        return (_INT32, struct.pack("<i", value)) if signed or value < 0 else (_UINT32, struct.pack("<I", value))
    if isinstance(value, float):
        return _FLOAT32, struct.pack("<f", value)
    return _STRING, _text(value)


def _value(value: Value) -> bytes:
    if isinstance(value, str | bool | int | float):
        kind, raw = _scalar(value, signed=False)
        return struct.pack("<I", kind) + raw
    each = [_scalar(item, signed=True) for item in value]
    return struct.pack("<IIQ", _ARRAY, each[0][0] if each else _STRING, len(each)) + b"".join(raw for _, raw in each)
