"""QuantWeight: the integers of one quantized matrix, in the one layout every kernel reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from forq.core import FormatError
from forq.quant.codes import BITS, parts


def zeros_dtype(bits: int) -> torch.dtype:
    """What holds every zero point of codes so wide, the 2^bits of GPTQ's version 1 included."""
    return torch.int16 if bits == 8 else torch.int8


@dataclass(frozen=True, slots=True, eq=False)
class QuantWeight:
    """The matrix ``w[o, i] = (code[o, i] − zero[g, o]) · scale[g, o]`` without its scales; g is i's group.

    Attributes:
        codes: uint8 (out, in · bits / 8), packed along ``in`` as :mod:`forq.quant.codes` says.
        zeros: int8 (groups, out); int16 where codes have 8 bits.
        bits: of one code; 2, 3, 4 or 8.
        group_size: consecutive inputs that share a scale; the last group may be shorter.
        group_of: int32 (in,), the group of every input where they are not consecutive (act-order), or None.
        zero: the zero point where one number serves the whole matrix (symmetric checkpoints), else None.
    """

    codes: Tensor
    zeros: Tensor
    bits: int
    group_size: int
    group_of: Tensor | None = None
    zero: int | None = field(init=False)

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise FormatError(f"expected codes of {', '.join(map(str, BITS))} bits, found {self.bits}")
        wanted = zeros_dtype(self.bits)
        if self.codes.dtype != torch.uint8 or self.zeros.dtype != wanted or self.codes.dim() != 2:
            raise FormatError(
                f"expected uint8 codes (out, in · {self.bits} / 8) and {wanted} zeros, found {self.codes.dtype} of "
                f"shape {tuple(self.codes.shape)} and {self.zeros.dtype}"
            )
        if self.codes.shape[1] * 8 % (self.bits * parts(self.bits)):
            raise FormatError(f"expected whole bytes of {self.bits}-bit codes, found rows of {self.codes.shape[1]}")
        groups = -(-self.in_features // self.group_size)
        if tuple(self.zeros.shape) != (groups, self.out_features):
            raise FormatError(f"expected zeros of shape {(groups, self.out_features)}, found {tuple(self.zeros.shape)}")
        first = int(self.zeros[0, 0])
        object.__setattr__(self, "zero", first if bool((self.zeros == first).all()) else None)

    @property
    def out_features(self) -> int:
        return int(self.codes.shape[0])

    @property
    def in_features(self) -> int:
        return int(self.codes.shape[1]) * 8 // self.bits

    @property
    def groups(self) -> int:
        return int(self.zeros.shape[0])

    def with_own_zeros(self) -> QuantWeight:
        """The same weight, whose zero points are read one by one even where they are all alike: they may change."""
        own = replace(self, zeros=self.zeros.clone())
        object.__setattr__(own, "zero", None)
        return own

    def to(self, device: torch.device) -> QuantWeight:
        """The same weight on another device."""
        group_of = None if self.group_of is None else self.group_of.to(device)
        return QuantWeight(self.codes.to(device), self.zeros.to(device), self.bits, self.group_size, group_of)
