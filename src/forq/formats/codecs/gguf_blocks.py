"""Blocks of GGUF's types that are no plain codes with one scale: what they stand for, in llama.cpp's own arithmetic.

Every product and difference is float32, in the order of ggml's dequantize_row functions, so that a matrix here is bit
for bit theirs: w = d·q + m (Q4_1, Q5_1), d·(q − 16) (Q5_0), (d·s)·q − dmin·n (Q2_K, Q4_K, Q5_K), (d·s)·(q − 4) (Q3_K),
(d·s)·(q − 32) (Q6_K), (d·(s − 32))·LEVELS[q] (IQ4_XS), with whole q, and whole s and n of a few bits shared by 16 or
32 values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forq.formats.codecs.gguf_codes import put_together, spots, taken_apart
from forq.formats.codecs.gguf_matrix import InBlocks
from forq.layers.codes import bits_at, put_bits_at
from forq.layers.scratch import Scratch


@dataclass(frozen=True, slots=True, eq=False)
class Blocks(InBlocks):
    """A matrix in blocks, a :class:`forq.layers.weight.CodedRows`; what is continuous (d, m, dmin) is handed in.

    Attributes:
        kind: the type.
        codes: uint8 (out, blocks, bytes), as the file packs them.
        factors: uint8 or int8 (out, blocks, bytes), s and n as the file packs them; None where the type has none.
    """

    def with_codes(self, codes: Tensor) -> Blocks:
        return replace(self, codes=codes)

    def part(self, first: int, last: int) -> Blocks:
        return self.with_codes(self.codes[first:last])

    def take_codes(self, start: int, stop: int) -> Tensor:
        rows = self.codes[start // self.in_features : stop // self.in_features]
        return taken_apart(rows, self.kind).view(-1).to(torch.int32)

    def put_codes(self, start: int, x: Tensor) -> None:
        first, codes = start // self.in_features, x.to(torch.uint8).view(-1, self.codes.shape[1], self.kind.size)
        self.codes[first : first + len(codes)] = put_together(codes, self.kind)

    def codes_at(self, places: Tensor) -> Tensor:
        return bits_at(self.codes.view(-1), spots(places, self.kind, self.codes.shape[2]))

    def put_codes_at(self, places: Tensor, x: Tensor) -> None:
        put_bits_at(self.codes.view(-1), spots(places, self.kind, self.codes.shape[2]), x)

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
        q = taken_apart(self.codes[start:stop] if codes is None else codes, self.kind)
        d, *second = (tensor[start:stop, :, None] for tensor in live)
        out = out.view(q.shape)
        if self.factors is None:
            _PLAIN[self.kind.name](q, d, second, out)
        else:
            _SCALED[self.kind.name](q, self.factors[start:stop], d, second, out)


def _centred(q: Tensor, d: Tensor, second: list[Tensor], out: Tensor) -> None:
    out.copy_(q).sub_(16).mul_(d)


def _from_minimum(q: Tensor, d: Tensor, second: list[Tensor], out: Tensor) -> None:
    out.copy_(q).mul_(d).add_(second[0])


_PLAIN: Mapping[str, Callable[[Tensor, Tensor, list[Tensor], Tensor], None]] = {
    "Q4_1": _from_minimum,
    "Q5_0": _centred,
    "Q5_1": _from_minimum,
}


def _less(q: Tensor, d: Tensor, dmin: Tensor, factor: Tensor, less: Tensor, out: Tensor) -> None:
    """(d·s)·q − dmin·n for s, n (rows, blocks, groups)."""
    view = out.view(*factor.shape, -1)
    view.copy_(q.view(view.shape)).mul_((d * factor.float())[..., None]).sub_((dmin * less.float())[..., None])


def _six_bits(q: Tensor, factors: Tensor, d: Tensor, second: list[Tensor], out: Tensor) -> None:
    """uint8 (rows, blocks, 12) → two of (rows, blocks, 8), six bits each."""
    low, mid, both = factors.view(*factors.shape[:2], 3, 4).unbind(2)
    factor = torch.cat((low & 63, both & 15 | low >> 2 & 48), dim=2)
    _less(q, d, second[0], factor, torch.cat((mid & 63, both >> 4 | mid >> 2 & 48), dim=2), out)


def _four_bits(q: Tensor, factors: Tensor, d: Tensor, second: list[Tensor], out: Tensor) -> None:
    _less(q, d, second[0], factors & 15, factors >> 4, out)


def _q3_k(q: Tensor, factors: Tensor, d: Tensor, second: list[Tensor], out: Tensor) -> None:
    low = torch.cat((factors[..., :8] & 15, factors[..., :8] >> 4), dim=2)
    shift = torch.arange(0, 8, 2, dtype=torch.uint8, device=factors.device)[:, None]
    high = factors[..., None, 8:] >> shift & 3
    out.copy_(q).sub_(4)
    out.view(*low.shape, -1).mul_((d * ((low | high.flatten(2) << 4).float() - 32))[..., None])


def _q6_k(q: Tensor, factors: Tensor, d: Tensor, second: list[Tensor], out: Tensor) -> None:
    out.copy_(q).sub_(32)
    out.view(*factors.shape, -1).mul_((d * factors.float())[..., None])


LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""What the codes of IQ4_NL and IQ4_XS stand for, in units of their scale."""


def _iq4_xs(q: Tensor, factors: Tensor, d: Tensor, second: list[Tensor], out: Tensor) -> None:
    levels = torch.tensor(LEVELS, dtype=torch.float32, device=q.device)
    torch.index_select(levels, 0, q.view(-1).int(), out=out.view(-1))
    four = torch.arange(0, 8, 4, dtype=torch.uint8, device=q.device)
    two = torch.arange(0, 8, 2, dtype=torch.uint8, device=q.device)
    low = (factors[..., 2:, None] >> four & 15).flatten(2)
    high = (factors[..., :2, None] >> two & 3).flatten(2)
    out.view(*low.shape, -1).mul_((d * ((low | high << 4).float() - 32))[..., None])


_SCALED: Mapping[str, Callable[[Tensor, Tensor, Tensor, list[Tensor], Tensor], None]] = {
    "Q2_K": _four_bits,
    "Q3_K": _q3_k,
    "Q4_K": _six_bits,
    "Q5_K": _six_bits,
    "Q6_K": _q6_k,
    "IQ4_XS": _iq4_xs,
}
