"""The frozen part of one quantized matrix: QuantWeight, which every kernel reads, or a weight that reads its own rows.

A format whose matrices are ``(code − zero) · scale`` or ``level[code] · scale`` returns a :class:`QuantWeight`. Other
formats (blocks with scales inside, codebooks of vectors) return a :class:`RowWeight`, which the reference kernel asks
for rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from forq.errors import FormatError
from forq.layers.codes import BITS, PackedCodes, parts
from forq.layers.scratch import Scratch


class Weight(Protocol):
    """The frozen part of a quantized matrix."""

    @property
    def out_features(self) -> int: ...

    @property
    def in_features(self) -> int: ...

    @property
    def bits(self) -> int:
        """Bits of one code, rounded up where they are a fraction."""

    @property
    def group_size(self) -> int:
        """Inputs that share a scale."""

    def to(self, device: torch.device) -> Weight:
        """The same weight on another device."""


class Table(Weight, Protocol):
    """A weight that can give some of its rows, as an embedding needs them."""

    def at(self, rows: Tensor) -> Weight:
        """Some rows, int64 (n,)."""


class RowWeight(Weight, Protocol):
    """A weight that dequantises its own rows."""

    def fill(
        self,
        live: Sequence[Tensor],
        start: int,
        stop: int,
        out: Tensor,
        scratch: Scratch,
        codes: Tensor | None = None,
    ) -> None:
        """Write rows ``start … stop − 1`` of the matrix.

        Args:
            live: the layer's continuous tensors, float32, in the file's shapes and the order of ``LayerSpec.live``.
            out: float32 (stop − start, in), contiguous; to be filled.
            scratch: buffers shared by all layers, for roles other than ``dense`` and ``probe``.
            codes: of these rows, to compute with in place of the weight's own; packed as they are.
        """


class CodedWeight(Weight, Protocol):
    """A weight whose codes can move: integers from 0 on, row by row, in one tensor."""

    @property
    def codes(self) -> Tensor:
        """Packed as the weight packs them, (out, …); written in place."""

    def take_codes(self, start: int, stop: int) -> Tensor:
        """Codes ``start … stop − 1``, whole rows: a fresh int32 tensor."""

    def put_codes(self, start: int, x: Tensor) -> None:
        """Store codes from ``start`` on, whole rows; integers of any dtype."""

    def codes_at(self, places: Tensor) -> Tensor:
        """Single codes: int64 (n,) → a fresh int32 (n,)."""

    def put_codes_at(self, places: Tensor, x: Tensor) -> None:
        """Store single codes, int32, at distinct places."""


class CodedRows(CodedWeight, RowWeight, Protocol):
    """A weight that dequantises its own rows, and whose codes can move."""

    def part(self, first: int, last: int) -> CodedRows:
        """Its rows of codes ``first … last − 1`` alone, a view: for their codes only, its ``fill`` is not called."""

    def with_codes(self, codes: Tensor) -> CodedRows:
        """The same weight with another tensor of codes."""


CODES_PER_PUT = 1 << 18
"""Codes packed at a time by :func:`put_all_codes`, so that the unpacked ones stay in the cache."""


def put_all_codes(weight: CodedWeight, codes: Tensor, start: int = 0) -> None:
    """Store the codes of rows from ``start`` on, (rows, codes of a row), some rows at a time."""
    columns = codes.shape[1]
    step = max(1, CODES_PER_PUT // columns)
    for first in range(0, len(codes), step):
        weight.put_codes((start + first) * columns, codes[first : first + step].view(-1))


def zeros_dtype(bits: int) -> torch.dtype:
    """A dtype that holds every zero point for codes of so many bits, the 2^bits of GPTQ's version 1 included."""
    return torch.int16 if bits == 8 else torch.int8


@dataclass(frozen=True, slots=True, eq=False)
class QuantWeight(PackedCodes):
    """The matrix ``w[o, i] = (code[o, i] − zero[g, o]) · scale[g, o]`` without its scales; g is i's group.

    With levels it is ``w[o, i] = level[code[o, i]] · scale[g, o]``.

    Attributes:
        codes: uint8 (out, in · bits / 8), packed along ``in`` as :mod:`forq.layers.codes` says.
        zeros: int8 (groups, out), int16 where codes have 8 bits; or float32, a view of a live tensor that may move.
            All 0 where there are levels.
        bits: of one code; 2, 3, 4 or 8.
        group_size: consecutive inputs that share a scale; the last group may be shorter.
        group_of: int32 (in,), the group of every input where they are not consecutive (act-order), or None.
        levels: float32 (2^bits,), rising: the value of each code in units of its scale (NF4, FP4); None: its number.
        zero: the zero point where the whole matrix has one integer (symmetric checkpoints), else None.
        level_bytes: (256,), for every byte of codes the levels of all codes in it, float32 side by side in one wider
            element; None without levels, and at 3 bits, where a code may straddle bytes.
    """

    codes: Tensor
    zeros: Tensor
    bits: int
    group_size: int
    group_of: Tensor | None = None
    levels: Tensor | None = None
    zero: int | None = field(init=False)
    level_bytes: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise FormatError(f"expected codes of {', '.join(map(str, BITS))} bits, found {self.bits}")
        wanted = zeros_dtype(self.bits)
        if self.codes.dtype != torch.uint8 or self.zeros.dtype not in (wanted, torch.float32) or self.codes.dim() != 2:
            raise FormatError(
                f"expected uint8 codes (out, in · {self.bits} / 8) and {wanted} zeros, found {self.codes.dtype} of "
                f"shape {tuple(self.codes.shape)} and {self.zeros.dtype}"
            )
        if self.codes.shape[1] * 8 % (self.bits * parts(self.bits)):
            raise FormatError(f"expected whole bytes of {self.bits}-bit codes, found rows of {self.codes.shape[1]}")
        groups = -(-self.in_features // self.group_size)
        if tuple(self.zeros.shape) != (groups, self.out_features):
            raise FormatError(f"expected zeros of shape {(groups, self.out_features)}, found {tuple(self.zeros.shape)}")
        if self.levels is not None and (self.levels.dtype != torch.float32 or len(self.levels) != 1 << self.bits):
            raise FormatError(f"expected float32 levels for {1 << self.bits} codes, found {len(self.levels)}")
        moves = self.zeros.is_floating_point()
        first = 0 if moves else int(self.zeros[0, 0])
        object.__setattr__(self, "zero", first if not moves and bool((self.zeros == first).all()) else None)
        object.__setattr__(self, "level_bytes", None if self.levels is None else _by_byte(self.levels, self.bits))

    @property
    def groups(self) -> int:
        return int(self.zeros.shape[0])

    @property
    def parts(self) -> int:
        """How many parts a row comes apart into when it is dequantised, see :mod:`forq.layers.codes`."""
        return parts(self.bits) if self.level_bytes is None else 1

    def with_codes(self, codes: Tensor) -> QuantWeight:
        """The same weight with another tensor of codes."""
        return replace(self, codes=codes)

    def with_own_zeros(self) -> QuantWeight:
        """A copy whose zero points are read in every call, even where they are all equal: they may change."""
        own = replace(self, zeros=self.zeros.clone())
        object.__setattr__(own, "zero", None)
        return own

    def at(self, rows: Tensor) -> QuantWeight:
        """Some rows, int64 (n,), of the matrix."""
        codes, zeros = self.codes.index_select(0, rows), self.zeros.index_select(1, rows)
        return replace(self, codes=codes, zeros=zeros)

    def to(self, device: torch.device) -> QuantWeight:
        """The same weight on another device."""
        group_of = None if self.group_of is None else self.group_of.to(device)
        levels = None if self.levels is None else self.levels.to(device)
        codes, zeros = self.codes.to(device), self.zeros.to(device)
        return QuantWeight(codes, zeros, self.bits, self.group_size, group_of, levels)


# Dtypes as wide as one float32 for each code of a byte.
_WIDE = {8: torch.float32, 4: torch.float64, 2: torch.complex128}


def _by_byte(levels: Tensor, bits: int) -> Tensor | None:
    if bits not in _WIDE:
        return None
    byte = torch.arange(256, device=levels.device)[:, None]
    code = byte >> torch.arange(0, 8, bits, device=levels.device) & (1 << bits) - 1
    return levels[code].view(_WIDE[bits]).view(-1)
