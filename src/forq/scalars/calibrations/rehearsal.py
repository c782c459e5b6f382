"""The rehearsal of a step: built from the slopes of one batch, and tried on others before the run takes any."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from forq.scalars.calibrations.group import GroupRequest, Probing
from forq.scalars.calibrations.trial import Trial
from forq.scalars.losses import means
from forq.scalars.moves import HERE, Move, Term

RADIUS = 3e-2
"""Least length of the rehearsed step."""
DIRECTIONS = 48
"""Most directions of the rehearsed step."""
BATCHES = 16
"""Most batches on which the step is rehearsed."""
LEAST = 0.02
"""Least share that a rehearsal is taken to have found."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What other batches say of a step that one batch asks for, Σ d_k·z_k over a population.

    Attributes:
        share: of the slope Σ d_k² which that batch promises along it, what the others confirm.
        error: standard error of the share.
        bend: curvature along it, over Σ d_k².
    """

    share: float
    error: float
    bend: float


class Rehearsal(NamedTuple):
    """What a rehearsal found (None: too small a budget, or no finite loss), and the number of the next step."""

    found: Rehearsed | None
    number: int


def rehearse(group: GroupRequest, seed: int, number: int, best: Trial, forwards: int) -> Probing[Rehearsal]:
    """Build a step from many directions on one batch, and try it, forwards and backwards, on other batches.

    Most of the slopes of a small batch is that batch's own noise, which other batches do not confirm. A step also bends
    the loss more than a random direction does, because it follows the gradient. With K directions the curvature along
    the step, over Σ d_k², is tr(H) + (K − 1)·R, where R is the Rayleigh quotient of the gradient. The rehearsal
    measures R with K directions and computes the curvature for the N directions of a training step.

    Args:
        best: the trial whose radius probes the directions.
        forwards: most forward passes to spend.
    """
    others = min(BATCHES, forwards // 9)
    count = min(DIRECTIONS, forwards - 1 - 3 * others)
    if others < 2 or count < 2 * group.directions:
        return Rehearsal(None, number)
    first, number = number, number + 1 + others

    def along(k: int, weight: float) -> Term:
        return group.term(seed, first, k, weight)

    here, *around = means((yield (HERE, *(Move((along(k, best.eps),)) for k in range(count)))))
    slopes = {k: (loss - here) / best.eps for k, loss in enumerate(around) if math.isfinite(loss - here)}
    square = sum(d * d for d in slopes.values())
    if square == 0.0:
        return Rehearsal(None, first + 1)
    size = max(best.eps, RADIUS) / math.sqrt(square)
    there = Move(tuple(along(k, size * d) for k, d in slopes.items()))
    tried = []
    for _ in range(others):
        here, up, down = means((yield (HERE, there, there.scaled(-1.0))))
        if math.isfinite(here + up + down):
            tried.append(((up - down) / (2.0 * size * square), (up + down - 2.0 * here) / (size**2 * square)))
    if len(tried) < 2:
        return Rehearsal(None, number)
    share, bend = (sum(column) / len(tried) for column in zip(*tried, strict=True))
    error = math.sqrt(sum((x - share) ** 2 for x, _ in tried) / (len(tried) - 1) / len(tried))
    trace = max(best.trace, best.trace_error)
    lean = max(0.0, (bend - trace) / (len(slopes) - 1))
    found = Rehearsed(min(max(share, error, LEAST), 1.0), error, trace + (group.directions - 1) * lean)
    return Rehearsal(found, number)
