"""GGUF tensor types: plain floats, and blocks of quantized values with their scales, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a block.

    Attributes:
        count: how many numbers of the dtype it holds.
        start: its first byte, from the block's beginning.
        mask: bits that are the field's in the bytes it shares with another field; empty: its bytes are its own.
    """

    name: str
    dtype: torch.dtype
    count: int
    start: int
    mask: bytes = b""

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
        bits: bits of a value's code; where several values share a code, as the type's name counts them, but 2 at least.
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


def _iq1_m() -> Kind:
    """The highest four bits of the four words of scales are d."""
    scales = Field("scales", _BYTE, 6, 48, mask=bytes([255, 15] * 4))
    d = Field("d", torch.float16, 1, 48, mask=bytes([0, 240] * 4))
    return Kind("IQ1_M", 256, 56, 2, (Field("qs", _BYTE, 48, 0), scales, d))


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
    16: _kind("IQ2_XXS", 256, 2, _D, ("qs", _BYTE, 64)),
    17: _kind("IQ2_XS", 256, 2, _D, ("qs", _BYTE, 64), ("scales", _BYTE, 8)),
    18: _kind("IQ3_XXS", 256, 3, _D, ("qs", _BYTE, 96)),
    19: _kind("IQ1_S", 256, 2, _D, ("qs", _BYTE, 48)),
    20: _kind("IQ4_NL", 32, 4, _D, ("qs", _BYTE, 16)),
    21: _kind("IQ3_S", 256, 3, _D, ("qs", _BYTE, 104), ("scales", _BYTE, 4)),
    22: _kind("IQ2_S", 256, 2, _D, ("qs", _BYTE, 72), ("scales", _BYTE, 8)),
    23: _kind("IQ4_XS", 256, 4, _D, ("scales", _BYTE, 6), ("qs", _BYTE, 128)),
    29: _iq1_m(),
    34: _kind("TQ1_0", 256, 2, ("qs", _BYTE, 52), _D),
    35: _kind("TQ2_0", 256, 2, ("qs", _BYTE, 64), _D),
}
"""Block types by their numbers. ``qs`` holds all bits of the codes: :mod:`forq.formats.codecs.gguf_codes`, and
:mod:`forq.formats.codecs.gguf_grids` for the types whose codes stand still."""

REFUSED: Mapping[int, str] = {
    39: "MXFP4, whose block scales are powers of two: the smallest step of a scale doubles 32 weights; "
    "quantize the model to Q4_0, IQ4_NL or Q4_K again",
    40: "NVFP4, whose block scales have three bits of mantissa; quantize the model to Q4_0, IQ4_NL or Q4_K again",
}
"""Types that are known and not read, and why."""

BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in BLOCKS.values()}
NUMBERS: Mapping[str, int] = {kind.name: number for number, kind in BLOCKS.items()}
