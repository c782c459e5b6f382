"""A step's length checked on further batches, where a run is too short to rehearse its step.

The trials of a short run know the curvature of one batch along one direction. From batch to batch it differs (by a
factor of five for 64 tokens of text on a network of 135 million weights), and a step that is too long makes the loss
worse at once. So a displacement as long as a step of N directions is measured on a batch of its own, both ways:

    h = (L₊ + L₋ − 2·L₀) / s²,    s = max(ε, each·slope·√N)

A step longer than ``bound`` / h for each direction is shortened to that. It is checked on one more batch until a batch
shortens it by less than ``NEAR``. The two sides also give one more sample of the slope.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from forq.scalars.calibrations.group import GroupRequest, Probing
from forq.scalars.losses import means
from forq.scalars.moves import HERE, Move

SHORTER = 0.25
"""What is left of a step at whose end the loss is not finite."""

NEAR = 1.5
"""Batches differ by this factor anyhow: a step shortened by less is not checked again."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A step after its checks.

    Attributes:
        each: step of each direction, per slope.
        slopes: one sample of the slope from each batch.
        bend: the largest curvature that was measured; ``-inf`` where no batch gave one.
        number: of the next step.
    """

    each: float
    slopes: tuple[float, ...]
    bend: float
    number: int


def check(
    group: GroupRequest, seed: int, number: int, *, each: float, slope: float, eps: float, bound: float
) -> Probing[Checked]:
    """Check a step on at most ``group.checks`` batches, from step ``number`` on.

    Args:
        each: the step of each direction, per slope.
        slope: the root mean square of the slopes.
        eps: the radius of the probes; no displacement is shorter, since rounding would hide the curvature.
        bound: the largest product of ``each`` and the curvature that is dared.
    """
    slopes: list[float] = []
    bend = -math.inf
    for _ in range(group.checks):
        size = max(eps, each * slope * math.sqrt(group.directions))
        weight = size / math.sqrt(group.directions)
        there = Move(tuple(group.term(seed, number, k, weight) for k in range(group.directions)))
        here, up, down = means((yield (HERE, there, there.scaled(-1.0))))
        number += 1
        if not math.isfinite(here + up + down):
            each *= SHORTER
            continue
        slopes.append(abs(up - down) / (2.0 * size))
        measured = (up + down - 2.0 * here) / size**2
        bend = max(bend, measured)
        agreed = each * measured <= NEAR * bound
        each = min(each, bound / measured) if measured > 0.0 else each
        if agreed:
            break
    return Checked(each, tuple(slopes), bend, number)
