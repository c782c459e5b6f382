"""QuantWeight: the integers of one quantized matrix, in the one layout every kernel reads."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from forq.core import FormatError


@dataclass(frozen=True, slots=True, eq=False)
class QuantWeight:
    """The matrix ``w[o, i] = (code[o, i] − zero[g, o]) · scale[g, o]`` without its scales; g is i's group.

    Attributes:
        codes: uint8 (out, in / 2); two codes a byte along ``in``, the lower one in the low nibble.
        zeros: int8 (groups, out).
        bits: of one code; 4.
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
        if self.bits != 4:
            raise FormatError(f"expected codes of 4 bits, found {self.bits}; other widths are not supported yet")
        if self.codes.dtype != torch.uint8 or self.zeros.dtype != torch.int8 or self.codes.dim() != 2:
            raise FormatError(
                f"expected uint8 codes (out, in / 2) and int8 zeros, found {self.codes.dtype} of shape "
                f"{tuple(self.codes.shape)} and {self.zeros.dtype}"
            )
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
        return 2 * int(self.codes.shape[1])

    @property
    def groups(self) -> int:
        return int(self.zeros.shape[0])

    def to(self, device: torch.device) -> QuantWeight:
        """The same weight on another device."""
        group_of = None if self.group_of is None else self.group_of.to(device)
        return QuantWeight(self.codes.to(device), self.zeros.to(device), self.bits, self.group_size, group_of)
