"""Codes whose groups do not lie inside one row, as HQQ makes them where it reshapes a matrix before it groups it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forq.layers.codes import PackedCodes, unpack
from forq.layers.scratch import Scratch


@dataclass(frozen=True, slots=True, eq=False)
class ScatteredWeight(PackedCodes):
    """A matrix in which weight f, counted row by row, belongs to group f mod m, or f div g.

    Attributes:
        codes: uint8, packed as those of a :class:`QuantWeight`.
        bits: of one code.
        groups: m.
        run: g, the number of consecutive weights in a group; 0: a group takes every m-th weight.
    """

    codes: Tensor
    bits: int
    groups: int
    run: int

    @property
    def group_size(self) -> int:
        return self.out_features * self.in_features // self.groups

    def to(self, device: torch.device) -> ScatteredWeight:
        """The same weight on another device."""
        return self.with_codes(self.codes.to(device))

    def with_codes(self, codes: Tensor) -> ScatteredWeight:
        """The same weight with other codes."""
        return replace(self, codes=codes)

    def part(self, first: int, last: int) -> ScatteredWeight:
        """See :class:`forq.layers.weight.CodedRows`."""
        return self.with_codes(self.codes[first:last])

    def fill(
        self,
        live: Sequence[Tensor],
        start: int,
        stop: int,
        out: Tensor,
        scratch: Scratch,
        codes: Tensor | None = None,
    ) -> None:
        """Rows ``start … stop − 1``: see :class:`forq.layers.weight.RowWeight`."""
        columns = self.in_features
        out.copy_(unpack(self.codes[start:stop] if codes is None else codes, self.bits))
        scales, zeros = (tensor.view(-1) for tensor in live)
        if not self.run and self.groups % columns == 0:
            # The rows take whole rows of scales in turn.
            row = torch.arange(start, stop, device=out.device) % (self.groups // columns)
            out.sub_(zeros.view(-1, columns)[row]).mul_(scales.view(-1, columns)[row])
            return
        place = torch.arange(start * columns, stop * columns, device=out.device)
        group = place // self.run if self.run else place % self.groups
        out.view(-1).sub_(zeros[group]).mul_(scales[group])
