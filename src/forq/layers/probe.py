"""A layer's codes while a probe is shown: made for some rows at a time, so that no second copy of the matrix exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from forq.coordinates.leaf import Overlay, SparseCodes
from forq.layers.scratch import Scratch
from forq.layers.weight import CodedRows, CodedWeight, put_all_codes

_CODES = {"cpu": 1 << 20}
_CODES_ELSEWHERE = 1 << 24
"""Codes that an overlay writes at a time, in float32; on a GPU launches cost more than passes over memory."""
_CODES_HELD = 1 << 21
"""Codes packed at a time: single ones take as long to put into a block of rows as into a small matrix."""


@dataclass(frozen=True, slots=True, eq=False)
class CodeProbe:
    """The codes that a forward computes with in place of a layer's own.

    Attributes:
        shown: an overlay that writes the codes of some rows, or single codes.
        shape: (rows of codes, codes of a row).
        scratch: buffers shared with every layer of the model.
    """

    shown: Overlay | SparseCodes
    shape: tuple[int, int]
    scratch: Scratch

    def put(self, weight: CodedWeight, first: int = 0, last: int | None = None) -> None:
        """Store codes in a weight that holds nothing but the rows of codes ``first … last − 1``; by default all."""
        rows, columns = self.shape
        last = rows if last is None else last
        if isinstance(self.shown, SparseCodes):
            all_rows = (first, last) == (0, rows)  # the usual case, without a search
            some = self.shown if all_rows else self.shown.between(first * columns, last * columns)
            weight.put_codes_at(some.places, some.x)
            return
        step = self._rows_at_a_time(weight.codes.device)
        for start in range(first, last, step):
            put_all_codes(weight, self._written(start, min(start + step, last), weight), start - first)

    def put_rows(self, part: CodedWeight, wanted: Tensor) -> None:
        """Store codes in a weight that holds nothing but the rows ``wanted``, int64 (n,), rising."""
        rows, columns = self.shape
        if isinstance(self.shown, SparseCodes):
            single = self.shown.within(wanted, columns)
            part.put_codes_at(single.places, single.x)
            return
        step = self._rows_at_a_time(wanted.device)
        for start in (torch.unique(wanted // step) * step).tolist():
            stop = min(start + step, rows)
            first, last = torch.searchsorted(wanted, torch.tensor([start, stop], device=wanted.device)).tolist()
            own = self._written(start, stop, part).index_select(0, wanted[first:last] - start)
            part.put_codes(first * columns, own.view(-1))

    def packed(self, weight: CodedRows) -> Callable[[int, int], Tensor]:
        """A function from rows ``start … stop − 1`` of a matrix to their codes, packed as ``weight`` packs its own.

        It makes those of more rows than it is asked for, and keeps them for the next call.
        """
        rows, columns = self.shape
        each = weight.out_features // rows  # of AQLM's codes one may cover several outputs
        begin, end, held = 0, 0, weight

        def codes(start: int, stop: int) -> Tensor:
            nonlocal begin, end, held
            first, last = start // each, -(-stop // each)
            if not begin <= first <= last <= end:
                begin, end = first, min(rows, max(last, first + _CODES_HELD // columns))
                own = weight.part(begin, end).codes
                copy = self.scratch.take("shown", tuple(own.shape), own.dtype, own.device)
                held = weight.with_codes(copy.copy_(own))
                self.put(held, begin, end)
            return held.part(first - begin, last - begin).codes

        return codes

    def _written(self, start: int, stop: int, weight: CodedWeight) -> Tensor:
        """What the overlay writes for some rows of codes: float32 (rows, codes of a row)."""
        columns = self.shape[1]
        codes = self.scratch.take("probe", (stop - start, columns), torch.float32, weight.codes.device)
        cast(Overlay, self.shown)(codes, start * columns)
        return codes

    def _rows_at_a_time(self, device: torch.device) -> int:
        return max(1, _CODES.get(device.type, _CODES_ELSEWHERE) // self.shape[1])
