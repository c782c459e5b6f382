"""The radius of integers that move by whole cells: one number ρ, for the probe and for the step.

A step of whole cells cannot be shorter than one cell, but it can move fewer coordinates. Below one cell, a root mean
square of ρ cells is ±1 at a share ρ² of the coordinates; above, ±round(ρ) everywhere (:mod:`forq.noise.laws.cells`).
Along such a direction the loss changes by ±ρ·σ with the sign of the vote and bends by ρ²·τ, so a step gains on average

    √(2/π)·share·ρ·σ − ½·ρ²·τ        most at ρ* = √(2/π)·share·σ / τ,

with σ the root mean square of the slopes and τ the trace of the Hessian, both in cells, and ``share`` the part of a
batch's slopes that other batches confirm. The calibration chooses ``newton`` · ρ*. A probe of another size than the
step would measure another place, so each trial takes the radius that the trial before it suggests.

Nearly all of a step is noise, which walks at random: W = ρ·√steps cells over a run of full steps. Two bounds hold it,
beyond which runs whose every step should have gained forgot what the network knew (`LOG.md`): W stays below ``WALK`` of
half the range, and ½·W²·τ, what noise of that size costs, below a share of the loss where the run begins (``cost`` of
the request).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forq.errors import RunError
from forq.scalars.calibrations.group import GroupRequest, GroupResult, Measured, Probing
from forq.scalars.losses import means
from forq.scalars.moves import HERE, Move, Term, direction_seed

START = 0.1
LEAST, MOST = 2.0**-9, 2.0**6
NEAR = 4.0
TRIALS = 6
PAIRS = 8
DIRECTIONS = 32
UNKNOWN = 0.5
WALK = 0.25
SIGN = math.sqrt(2.0 / math.pi)


def measure_cells(group: GroupRequest, seed: int, number: int, budget: int, steps: float) -> Probing[Measured]:
    """Measure ρ of one group from step ``number`` on, with about ``budget`` forwards.

    Args:
        steps: of full length, that walk as far as those of the run.

    Raises:
        RunError: the losses are not finite, or no displacement changes them.
    """
    pairs = min(PAIRS, max(2, (budget // 4 - 1) // 2))
    trials = max(1, min(TRIALS, budget // (2 * (2 * pairs + 1))))
    radius, last, seen = START, None, False
    for _ in range(trials):
        losses = means((yield _ask(group, seed, number, number, radius, pairs)))
        number += 1
        trial = _read(losses, radius)
        if trial is None:  # too far: nothing finite is there
            radius = max(radius / 10.0, LEAST)
            continue
        seen, last = True, trial
        best = group.newton * SIGN * trial.slope / trial.bend if trial.bend > 0.0 else math.inf
        if trial.slope == 0.0 or best > NEAR * radius:
            going = min(10.0 * radius, max(best, NEAR * radius), MOST)
        elif best < radius / NEAR:
            going = max(best, radius / 10.0, LEAST)
        else:
            break
        if going == radius:
            break
        radius = going
    if not seen or last is None:
        raise RunError(
            "the loss is not finite around the starting point, one cell away at a thousandth of the coordinates"
        )
    count = min(DIRECTIONS, (budget - trials * (2 * pairs + 1) - 2) // 4)
    share = UNKNOWN
    if count >= pairs:
        # The same directions on two batches: what both say of them is the data's, the rest each batch's own.
        first, both = number, []
        for _ in range(2):
            losses = means((yield _ask(group, seed, first, number, radius, count)))
            number += 1
            both.append(_read(losses, radius))
        left, right = both
        if left is not None and right is not None and left.slope * right.slope > 0.0:
            agree = sum(a * b for a, b in zip(left.slopes, right.slopes, strict=True))
            square = 0.5 * sum(a * a + b * b for a, b in zip(left.slopes, right.slopes, strict=True))
            share = min(max(agree / square, 1.0 / math.sqrt(count)), 1.0)
            slope = math.sqrt(0.5 * (left.slope**2 + right.slope**2))
            trace, error = 0.5 * (left.trace + right.trace), 0.5 * math.hypot(left.error, right.error)
            last = _Trial(0.5 * (left.here + right.here), slope, trace, error, ())
    if last.slope == 0.0:
        raise RunError("no displacement by whole cells changes the loss: what moves has no part in it")
    best = group.newton * SIGN * share * last.slope / last.bend if last.bend > 0.0 else math.inf
    far = (WALK if group.walk is None else group.walk) * group.half_range
    if group.cost is not None and last.here > 0.0 and last.bend > 0.0:
        far = min(far, math.sqrt(2.0 * group.cost * last.here / last.bend))
    radius = max(min(best, NEAR * radius, far / math.sqrt(group.directions * steps), MOST), LEAST)
    notes = {"radius": radius, "slope": last.slope, "trace": last.trace, "trace_error": last.error, "share": share}
    return Measured(GroupResult(1.0, 1.0, 0.0, last.slope, notes, radius), number)


@dataclass(frozen=True, slots=True)
class _Trial:
    """The loss, slopes by direction with their root mean square, and the trace with its standard error; in cells."""

    here: float
    slope: float
    trace: float
    error: float
    slopes: tuple[float, ...]

    @property
    def bend(self) -> float:
        """The trace, or what it may be where its own error hides it."""
        return max(self.trace, self.error)


def _ask(group: GroupRequest, seed: int, drawn: int, number: int, radius: float, pairs: int) -> tuple[Move, ...]:
    def probe(k: int, side: float) -> Move:
        return Move((Term(direction_seed(seed, drawn, k), side, f"cells:{radius:.4g}", group.name),))

    return (HERE, *(probe(k, side) for k in range(pairs) for side in (1.0, -1.0)))


def _read(losses: Sequence[float], radius: float) -> _Trial | None:
    here, *around = losses
    if not all(math.isfinite(loss) for loss in losses):
        return None
    size = radius if radius < 1.0 else float(round(radius))
    pairs = list(zip(around[0::2], around[1::2], strict=True))
    slopes = tuple((a - b) / (2.0 * size) for a, b in pairs)
    bends = [(a + b - 2.0 * here) / size**2 for a, b in pairs]
    trace = sum(bends) / len(bends)
    error = math.sqrt(sum((h - trace) ** 2 for h in bends) / max(1, len(bends) - 1) / len(bends))
    return _Trial(here, math.sqrt(sum(d * d for d in slopes) / len(slopes)), trace, error, slopes)
