"""Blocks of GGUF's types that are no plain codes with one scale: what they stand for, in llama.cpp's own arithmetic.

Every product and difference is float32, in the order of ggml's dequantize_row functions, so that a matrix here is bit
for bit theirs: w = d·q + m (Q4_1, Q5_1), d·(q − 16) (Q5_0), (d·s)·q − dmin·n (Q2_K, Q4_K, Q5_K), (d·s)·(q − 4) (Q3_K),
(d·s)·(q − 32) (Q6_K), with whole q, and whole s and n of a few bits shared by 16 or 32 values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forq.quant.scratch import Scratch


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A matrix in blocks; what moves (d, m, dmin) is handed in.

    Attributes:
        kind: the type's name.
        still: the blocks' other fields by name, uint8 or int8 (out, blocks, numbers).
        bits: of a code.
        group_size: values of a block.
    """

    kind: str
    still: Mapping[str, Tensor]
    bits: int
    group_size: int

    @property
    def out_features(self) -> int:
        return len(next(iter(self.still.values())))

    @property
    def in_features(self) -> int:
        return int(next(iter(self.still.values())).shape[1]) * self.group_size

    def to(self, device: torch.device) -> Blocks:
        return replace(self, still={name: part.to(device) for name, part in self.still.items()})

    def at(self, rows: Tensor) -> Blocks:
        """Some rows, int64 (n,), of the matrix."""
        return replace(self, still={name: part.index_select(0, rows) for name, part in self.still.items()})

    def fill(self, live: Sequence[Tensor], start: int, stop: int, out: Tensor, scratch: Scratch) -> None:
        still = {name: part[start:stop] for name, part in self.still.items()}
        d, *second = (tensor[start:stop, :, None] for tensor in live)
        _FILL[self.kind](still, d, second, out.view(stop - start, -1, self.group_size))


Fill = Callable[[Mapping[str, Tensor], Tensor, list[Tensor], Tensor], None]


def _halves(qs: Tensor, width: int) -> Tensor:
    """uint8 (n, b, k) → (n, b, k/width, 2, width): the low four bits of every ``width`` bytes, then the high."""
    parts = qs.reshape(*qs.shape[:2], -1, width)
    return torch.stack((parts & 15, parts >> 4), dim=3)


def _spread(byte: Tensor, width: int, bits: int) -> Tensor:
    """uint8 (n, b, k) → (n, b, k/width, 8/bits, width): the lowest ``bits`` of every ``width`` bytes, then the next."""
    shift = torch.arange(0, 8, bits, dtype=torch.uint8, device=byte.device).view(-1, 1)
    return byte.reshape(*byte.shape[:2], -1, 1, width) >> shift & (1 << bits) - 1


def _high_bits(qh: Tensor) -> Tensor:
    """uint8 (n, b, 4) → (n, b, 32): bit i of the four bytes together."""
    shift = torch.arange(8, dtype=torch.uint8, device=qh.device)
    return (qh[..., None] >> shift & 1).flatten(2)


def _q4_1(still: Mapping[str, Tensor], d: Tensor, second: list[Tensor], out: Tensor) -> None:
    out.copy_(_halves(still["qs"], 16).flatten(2)).mul_(d).add_(second[0])


def _five(still: Mapping[str, Tensor]) -> Tensor:
    return _halves(still["qs"], 16).flatten(2) | _high_bits(still["qh"]) << 4


def _q5_0(still: Mapping[str, Tensor], d: Tensor, second: list[Tensor], out: Tensor) -> None:
    out.copy_(_five(still)).sub_(16).mul_(d)


def _q5_1(still: Mapping[str, Tensor], d: Tensor, second: list[Tensor], out: Tensor) -> None:
    out.copy_(_five(still)).mul_(d).add_(second[0])


def _six_bits(scales: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 (n, b, 12) → two of (n, b, 8): the factors of d and of dmin, six bits each, as Q4_K and Q5_K pack them."""
    low, mid, both = scales.reshape(*scales.shape[:2], 3, 4).unbind(2)
    factor = torch.cat((low & 63, both & 15 | low >> 2 & 48), dim=2)
    return factor, torch.cat((mid & 63, both >> 4 | mid >> 2 & 48), dim=2)


def _scaled(q: Tensor, d: Tensor, dmin: Tensor, factor: Tensor, less: Tensor, out: Tensor) -> None:
    """(d·s)·q − dmin·n for q (n, b, groups, width) and s, n (n, b, groups)."""
    view = out.view(q.shape)
    view.copy_(q).mul_((d * factor.float())[..., None]).sub_((dmin * less.float())[..., None])


def _q4_k(still: Mapping[str, Tensor], d: Tensor, second: list[Tensor], out: Tensor) -> None:
    _scaled(_halves(still["qs"], 32).flatten(2, 3), d, second[0], *_six_bits(still["scales"]), out)


def _q5_k(still: Mapping[str, Tensor], d: Tensor, second: list[Tensor], out: Tensor) -> None:
    high = _spread(still["qh"], 32, 1).flatten(2, 3)
    q = _halves(still["qs"], 32).flatten(2, 3) | high << 4
    _scaled(q, d, second[0], *_six_bits(still["scales"]), out)


def _q2_k(still: Mapping[str, Tensor], d: Tensor, second: list[Tensor], out: Tensor) -> None:
    q = _spread(still["qs"], 32, 2).reshape(*out.shape[:2], 16, 16)
    _scaled(q, d, second[0], still["scales"] & 15, still["scales"] >> 4, out)


def _q3_k(still: Mapping[str, Tensor], d: Tensor, second: list[Tensor], out: Tensor) -> None:
    scales = still["scales"]
    low = torch.cat((scales[..., :8] & 15, scales[..., :8] >> 4), dim=2)
    factor = (low | _spread(scales[..., 8:], 4, 2).flatten(2) << 4).float() - 32
    # A bit that is not set takes four away.
    high = _spread(still["hmask"], 32, 1).reshape(*out.shape[:2], 16, 16)
    view = out.view(high.shape)
    view.copy_(_spread(still["qs"], 32, 2).reshape(*out.shape[:2], 16, 16) | high << 2).sub_(4)
    view.mul_((d * factor)[..., None])


def _q6_k(still: Mapping[str, Tensor], d: Tensor, second: list[Tensor], out: Tensor) -> None:
    low = _halves(still["ql"], 64).reshape(*out.shape[:2], 8, 32)
    high = _spread(still["qh"], 32, 2).flatten(2, 3)
    view = out.view(*out.shape[:2], 16, 16)
    view.copy_((low | high << 4).reshape(*out.shape[:2], 16, 16)).sub_(32)
    view.mul_((d * still["scales"].float())[..., None])


_FILL: Mapping[str, Fill] = {
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
