"""One probe, measured by several ranks: each takes some of the forward passes into which the loss cuts its batch.

The cuts are those that one process makes, so that the loss keeps its bits. A loss whose batch is one forward pass
cannot be shared: half of its rows in a forward pass of their own would give other last bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from forq.runs.divided import Divided, Numbers
from forq.runs.ranks import packing
from forq.scalars.moves import Move
from forq.tokens import sharing

Found = tuple[Numbers, dict[int, Tensor]]
"""A rank's part of a probe, and the token losses of the forward passes that it measured, by number."""


def measure(own: Divided, step: int, probes: Sequence[Move], place: int, turn: int, turns: int) -> Found:
    """What a rank measures of its probe."""
    with sharing.some(turn, turns) as kept:
        (part,) = own.measure(step, probes, [place])
    return part, kept if turns > 1 else {}


def pack(part: Numbers, kept: Mapping[int, Tensor]) -> bytes:
    """As bytes: the part, then of each forward pass its number and its token losses."""
    passes = [np.array([number, *losses.double().tolist()]) for number, losses in kept.items()]
    return packing.pack_numbers([part, *passes])


def unpack(body: bytes) -> Found:
    """The inverse of :func:`pack`."""
    part, *passes = packing.unpack_numbers(body)
    return part, {int(numbers[0]): torch.from_numpy(numbers[1:].astype(np.float32)) for numbers in passes}


def join(
    own: Divided,
    step: int,
    probes: Sequence[Move],
    place: int,
    dealt: Sequence[tuple[int, int, int]],
    found: Sequence[Found],
) -> Numbers:
    """The part of a probe from what its ranks measured; without a forward pass."""
    ours = [(turn, each) for (at, turn, _), each in zip(dealt, found, strict=True) if at == place]
    passes: dict[int, Tensor] = {}
    for _, (_, kept) in ours:
        passes |= kept
    if not passes or len(ours) == 1:  # the loss is one forward pass, which the first of the ranks measured
        return next(part for turn, (part, _) in ours if turn == 0)
    with sharing.given(passes):
        (part,) = own.measure(step, probes, [place])
    return part


def idle(dealt: Sequence[tuple[int, int, int]], found: Sequence[Found]) -> int:
    """Number of ranks that had nothing to measure."""
    return sum(turn > 0 and not kept for (_, turn, _), (_, kept) in zip(dealt, found, strict=True))
