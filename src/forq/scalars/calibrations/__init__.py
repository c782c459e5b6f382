"""Calibration: ε, η and C from a few losses before the first step, so that nobody has to search for them.

Trials of probe radii choose ε, and measure slopes and curvature (:mod:`forq.scalars.calibrations.trial`).

The step is then rehearsed (:mod:`forq.scalars.calibrations.rehearsal`): built from many slopes of one batch and tried
on others, which measures the ``share`` of those slopes that other batches confirm and the ``bend`` (curvature) of the
loss along such a step. For a direction of slope d the loss falls by each·share·d² − ½·each²·bend·d², which is largest
at share / bend; the fraction ``newton`` of that is taken. Three bounds limit the step:

- ``LONGEST`` radii, since nothing is known beyond;
- ``WALK``, the root mean square over the coordinates of what the unconfirmed share adds up to as a random walk over the
  run: steps that gain on a quadratic still lead a long noisy run astray (`LOG.md`). A group may have a walk of its own,
  of which all of a step counts, because slopes of adapters grow as they leave zero, and what is confirmed at the start
  bounds no later step;
- ``LENGTH``, where the run is too short to rehearse.

A Gauss–Newton step (:mod:`forq.scalars.rules.newton`) measures curvature and share itself, in every step. Of it only ε
is open: the first radius that stands clear of the noise, from small ones on.

In a run too short to rehearse, further batches check the step (:mod:`forq.scalars.calibrations.checks`) where the group
has checks: the trial's curvature then bounds the step even if it is in doubt, and a batch that bends more shortens it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from forq.scalars.calibrations.cells import measure_cells
from forq.scalars.calibrations.checks import check
from forq.scalars.calibrations.group import GroupRequest, GroupResult, Measured, Probing
from forq.scalars.calibrations.rehearsal import rehearse
from forq.scalars.calibrations.trial import EPS, FEW_PAIRS, SMALL_EPS, Trial, try_radii
from forq.scalars.course import SQUARES
from forq.scalars.protocols import Calibration, Method

LENGTH, FREE_LENGTH = 5e-3, 1.5e-2
"""Longest step of a run that is too short to rehearse; the second, where the group has a walk of its own."""
LONGEST = 4.0
"""Longest step in radii."""
WALK = 0.163
"""Root mean square of how far the noise of all steps may carry a coordinate."""
PAIRS = 8
"""Most antithetic pairs of a trial."""
UNKNOWN = 0.25
"""Share of a slope that other batches are taken to confirm where nothing was rehearsed."""
CLIP = 5.0
"""Bound of a slope, as a multiple of the slopes' root mean square."""
SHARE = 0.05
"""Most of a run's forward passes that its calibration takes."""


__all__ = ["GroupRequest", "GroupResult", "calibrate", "most", "trials"]

Finish = Callable[[Mapping[str, GroupResult], int], Method]
"""From the results by group, and the number of the first training step, to the method."""


def trials(forwards: int) -> tuple[int, int]:
    """How many antithetic pairs a trial gets, and how many trials, within a twentieth of the run's forwards."""
    budget = int(SHARE * forwards)
    pairs = min(PAIRS, max(1, (budget - 3) // 2))
    return pairs, max(1, min(len(EPS), budget // (3 + 2 * pairs)))


def most(forwards: int, checks: int, radius_only: bool) -> int:
    """The most forward passes that one group's calibration takes, of a run of so many.

    Args:
        checks, radius_only: see :class:`GroupRequest`.
    """
    if radius_only:
        return (3 + 2 * FEW_PAIRS) * len(SMALL_EPS)
    return max(int(SHARE * forwards), 5) + 3 * checks


def calibrate(
    *, seed: int, groups: Sequence[GroupRequest], forwards: int, steps: int, decay: str, finish: Finish
) -> Calibration:
    """Measure one group after the other, each alone, then return the method.

    Args:
        forwards: of the whole run; at most a twentieth of them (five a group at the least) go into this, and three
            for each batch on which a short run checks its step.
        steps: of the whole run.
        decay: how a step shrinks over it, one of :data:`forq.scalars.course.SHAPES`.

    Raises:
        RunError: the losses are not finite, or no displacement changes them.
    """
    results: dict[str, GroupResult] = {}
    number = 0
    full = SQUARES[decay] * steps  # as many steps of full length walk as far
    for group in groups:
        share = forwards // len(groups)
        if group.radius_only:
            results[group.name], number = yield from _radius(group, seed, number)
        elif group.cells:
            results[group.name], number = yield from measure_cells(group, seed, number, int(SHARE * share), full)
        else:
            results[group.name], number = yield from _measure(group, seed, number, share, full)
    return finish(results, number)


def _radius(group: GroupRequest, seed: int, number: int) -> Probing[Measured]:
    """The smallest radius whose losses stand clear of rounding, for a step that sets its own length."""
    best, number, _ = yield from try_radii(group, seed, number, FEW_PAIRS, SMALL_EPS)
    notes = {"slope": best.slope, "noise": best.noise, "signal": best.signal, "eps": best.eps}
    return Measured(GroupResult(best.eps, math.nan, math.nan, best.slope, notes), number)


def _measure(group: GroupRequest, seed: int, number: int, forwards: int, steps: float) -> Probing[Measured]:
    """The numbers of one group, from step ``number`` on."""
    pairs, count = trials(forwards)
    best, number, spent = yield from try_radii(group, seed, number, pairs, EPS[:count])
    step, number = yield from rehearse(group, seed, number, best, int(SHARE * forwards) - spent)
    walk, length, noise = WALK, LENGTH, 1.0 - (UNKNOWN if step is None else step.share)
    if group.walk is not None:
        walk, length, noise = group.walk, FREE_LENGTH, 1.0
    wander = math.sqrt(max(noise, 1e-6) * group.directions * steps)
    longest = min(LONGEST * best.eps, walk / wander, length if step is None else math.inf)
    slope, notes = best.slope, {name: getattr(best, name) for name in ("noise", "signal", "trace", "trace_error")}
    if step is not None:
        each = group.newton * step.share / step.bend if step.bend > 0.0 else math.inf
        notes |= {"share": step.share, "share_error": step.error, "bend": step.bend}
    else:
        each = _unrehearsed(group, best)
    each = min(each, longest / slope)
    if step is None and group.checks:
        bound = group.newton * UNKNOWN
        done = yield from check(group, seed, number, each=each, slope=slope, eps=best.eps, bound=bound)
        number, slope = (
            done.number,
            math.sqrt((pairs * slope**2 + sum(x * x for x in done.slopes)) / (pairs + len(done.slopes))),
        )
        each = min(done.each, longest / slope)
        notes |= {"bend": done.bend} if math.isfinite(done.bend) else {}
    lr, clip = each * group.directions, CLIP * slope
    notes = {"slope": slope, **notes, "eps": best.eps, "lr": lr, "clip": clip}
    return Measured(GroupResult(best.eps, lr, clip, slope, notes), number)


def _unrehearsed(group: GroupRequest, best: Trial) -> float:
    """The longest step of each direction, per slope, that the trial's curvature allows where nothing is rehearsed."""
    if group.checks:
        bend = max(best.trace, best.trace_error)
    else:
        bend = best.trace if best.sure else 0.0
    return group.newton * UNKNOWN / bend if bend > 0.0 else math.inf
