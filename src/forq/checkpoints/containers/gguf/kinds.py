"""GGUF tensor types: plain floats, and blocks of quantized values with their scales, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a block: ``count`` numbers of a dtype, ``start`` bytes after the block's beginning."""

    name: str
    dtype: torch.dtype
    count: int
    start: int

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of blocks.

    Attributes:
        name: the usual name, ``Q4_K`` for example.
        size: number of values in a block.
        nbytes: size of a block in bytes.
        bits: bits of a value's code.
        fields: the fields of a block, in order.
    """

    name: str
    size: int
    nbytes: int
    bits: int
    fields: tuple[Field, ...]

    @property
    def live(self) -> tuple[Field, ...]:
        """The continuous fields: the scale d and, if present, the minimum or its scale."""
        return tuple(field for field in self.fields if field.dtype == torch.float16)


FLOATS: Mapping[int, torch.dtype] = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}
"""Plain float types by their numbers."""


def _kind(name: str, size: int, bits: int, *parts: tuple[str, torch.dtype, int]) -> Kind:
    fields, at = [], 0
    for part, dtype, count in parts:
        fields.append(Field(part, dtype, count, at))
        at += fields[-1].nbytes
    return Kind(name, size, at, bits, tuple(fields))


_D, _M, _DMIN = ("d", torch.float16, 1), ("m", torch.float16, 1), ("dmin", torch.float16, 1)
_BYTE = torch.uint8

BLOCKS: Mapping[int, Kind] = {
    2: _kind("Q4_0", 32, 4, _D, ("qs", _BYTE, 16)),
    3: _kind("Q4_1", 32, 4, _D, _M, ("qs", _BYTE, 16)),
    6: _kind("Q5_0", 32, 5, _D, ("qs", _BYTE, 20)),
    7: _kind("Q5_1", 32, 5, _D, _M, ("qs", _BYTE, 20)),
    8: _kind("Q8_0", 32, 8, _D, ("qs", torch.int8, 32)),
    10: _kind("Q2_K", 256, 2, ("scales", _BYTE, 16), ("qs", _BYTE, 64), _D, _DMIN),
    11: _kind("Q3_K", 256, 3, ("qs", _BYTE, 96), ("scales", _BYTE, 12), _D),
    12: _kind("Q4_K", 256, 4, _D, _DMIN, ("scales", _BYTE, 12), ("qs", _BYTE, 128)),
    13: _kind("Q5_K", 256, 5, _D, _DMIN, ("scales", _BYTE, 12), ("qs", _BYTE, 160)),
    14: _kind("Q6_K", 256, 6, ("qs", _BYTE, 192), ("scales", torch.int8, 16), _D),
}
"""Block types by their numbers. ``qs`` holds all bits of the codes: :mod:`forq.formats.codecs.gguf_codes`."""

BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in BLOCKS.values()}
NUMBERS: Mapping[str, int] = {kind.name: number for number, kind in BLOCKS.items()}
