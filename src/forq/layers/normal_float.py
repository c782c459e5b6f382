"""Codes of 4 bits for levels between −1 and 1, times the largest magnitude of their block: NF4 and FP4.

    w[i] = level[code[i]] · absmax[i // blocksize],   i counts the matrix row by row

NF4's levels are quantiles of a normal distribution (QLoRA, arXiv 2305.14314); FP4's are a float of one sign bit, two
of exponent and one of mantissa, over 12. Layers keep *ranks*, codes in the order of their levels, so that one cell up
or down is the next level: the companded step of CAQ-ZO (arXiv 2605.10673). NF4's codes are ranks as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from forq.errors import ConfigError

Kind = Literal["nf4", "fp4"]

# fmt: off
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)
# fmt: on
# Twelfths, by code without its sign bit; a sign bit before zero gives zero again.
_FP4 = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)
_BLOCK_VALUES = 1 << 20
_SMALLEST = 1e-38


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The sixteen levels of one kind.

    Attributes:
        filed: float32 (16,), the level of every code.
        levels: the same, rising.
        rank_of, code_of: uint8 (16,), from codes to ranks among the levels and back; of two codes of one level (FP4's
            zeros) the lower code has the lower rank.
    """

    filed: Tensor
    levels: Tensor
    rank_of: Tensor
    code_of: Tensor


@cache
def table(kind: Kind) -> Table:
    """The levels of a kind."""
    filed = torch.tensor(_NF4) if kind == "nf4" else torch.tensor((*_FP4, *(-level for level in _FP4))) / 12.0
    order = filed.argsort(stable=True)
    return Table(filed, filed[order], order.argsort().to(torch.uint8), order.to(torch.uint8))


def quantise(weight: Tensor, kind: Kind, blocksize: int = 64) -> tuple[Tensor, Tensor]:
    """Round a tensor to the nearest levels, blocks of ``blocksize`` values row by row.

    Args:
        weight: float, of any shape.
        blocksize: values that share a magnitude, even; the last block may be shorter.

    Returns:
        Ranks, uint8 (values,), one a byte; and absmax, float32 (blocks,).

    Raises:
        ConfigError: the block size is invalid, or a value is not finite.
    """
    if blocksize < 2 or blocksize % 2:
        raise ConfigError(f"expected an even blocksize of at least 2, found {blocksize}")
    flat, levels = weight.detach().reshape(-1), table(kind).levels
    middles = (levels[:-1] + levels[1:]) / 2
    ranks = torch.empty(flat.numel(), dtype=torch.uint8)
    absmax = torch.empty(-(-flat.numel() // blocksize))
    step = max(1, _BLOCK_VALUES // blocksize) * blocksize
    for start in range(0, flat.numel(), step):
        part = flat[start : start + step].float()
        if not torch.isfinite(part).all():
            raise ConfigError("expected finite weights, found NaN or infinity")
        short = -part.numel() % blocksize
        blocks = torch.nn.functional.pad(part, (0, short)).view(-1, blocksize)
        high = blocks.abs().amax(1)
        absmax[start // blocksize : start // blocksize + len(high)] = high
        # In this order and in float32 the codes are bitsandbytes's own; its last, short block divides.
        unit = blocks * (1.0 / high.clamp(min=_SMALLEST))[:, None]
        if short:
            high[-1] = absmax[-1] = high[-1].clamp(min=_SMALLEST)
            unit[-1] = blocks[-1] / high[-1]
        near = torch.bucketize(unit.view(-1)[: part.numel()].clamp_(-1, 1), middles, out_int32=True)
        ranks[start : start + step] = near
    return ranks, absmax


def packed(codes: Tensor) -> Tensor:
    """uint8 codes one a byte, of any number → (⌈n / 2⌉, 1), the first of two in the high bits: as bitsandbytes does."""
    pairs = torch.nn.functional.pad(codes.reshape(-1), (0, codes.numel() % 2)).view(-1, 2)
    return (pairs[:, :1] << 4) | pairs[:, 1:]
