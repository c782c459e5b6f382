"""Calibration: ε, η and C from a few losses before the first step, so that nobody has to search for them.

A trial is one line of the journal, on one batch: the point itself, a tiny displacement that shows the rounding of the
loss alone, and antithetic pairs at the trial's ε. From them

    noise   = rms of the losses' change under the tiny displacement
    d_k     = (L₊ − L₋) / 2ε              slopes
    h_k     = (L₊ + L₋ − 2L₀) / ε²        curvature along z_k; its mean is E[z·Hz], the trace the noise sees

ε is the first of the trials whose loss differences stand ``SIGNAL`` times above the noise, of whose pairs ``LIVE``
differ at all (an accuracy is the same for near points), and whose trace is positive beyond doubt; else the first with
signal enough, else the one with most.

The step is then rehearsed (:func:`_rehearse`): built from many slopes of one batch and tried on others, which tells the
``share`` of those slopes that other batches confirm and the ``bend`` of the loss along such a step. For a direction of
slope d the loss falls by each·share·d² − ½·each²·bend·d²: most at share / bend, of which ``newton`` is dared. Three
bounds hold it in: ``LONGEST`` radii, since nothing is known beyond; ``WALK``, root mean square over the coordinates of
what the unconfirmed share adds up to as a random walk over the run, because steps that gain on a quadratic still lead a
long noisy run astray (`LOG.md`); and where the run is too short to rehearse, ``LENGTH``. A group may be given a walk of
its own, of which all of a step counts: slopes of adapters grow as they leave zero, and what is confirmed at the start
bounds no later step.

A Gauss–Newton step (:mod:`forq.scalars.rules.newton`) measures curvature and share itself, in every step. Of it only ε
is open: the first radius that stands clear of the noise, from small ones on.

In a run too short to rehearse, further batches check the step (:mod:`forq.scalars.calibrations.checks`) where the group
has checks: the trial's curvature then bounds the step even if it is in doubt, and a batch that bends more shortens it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from forq.errors import RunError
from forq.scalars.calibrations.cells import measure_cells
from forq.scalars.calibrations.checks import check
from forq.scalars.calibrations.group import GroupRequest, GroupResult
from forq.scalars.course import SQUARES
from forq.scalars.losses import Losses, means
from forq.scalars.moves import HERE, Move, Term, direction_seed
from forq.scalars.protocols import Calibration, Method

EPS = (1e-2, 3e-2, 1e-1)
"""Radii that are tried, in this order."""
SMALL_EPS, FEW_PAIRS = (3e-3, *EPS), 1
"""Radii and pairs of a trial where only ε is open."""
TINY = 1e-6
"""Size of the displacement that shows the rounding of the loss."""
SIGNAL = 30.0
"""Least ratio of a loss difference to its noise."""
LIVE = 0.5
"""Least share of the pairs whose two losses differ."""
LENGTH, FREE_LENGTH = 5e-3, 1.5e-2
"""Longest step of a run that is too short to rehearse; the second, where the group has a walk of its own."""
LONGEST = 4.0
"""Longest step in radii."""
RADIUS = 3e-2
"""Least length of the rehearsed step."""
WALK = 0.163
"""Root mean square of how far the noise of all steps may carry a coordinate."""
PAIRS = 8
"""Most antithetic pairs of a trial."""
DIRECTIONS = 48
"""Most directions of the rehearsed step."""
BATCHES = 16
"""Most batches on which the step is rehearsed."""
UNKNOWN = 0.25
"""Share of a slope that other batches are taken to confirm where nothing was rehearsed."""
LEAST = 0.02
"""Least share that a rehearsal is taken to have found."""
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


def _radius(
    group: GroupRequest, seed: int, number: int
) -> Generator[tuple[Move, ...], Sequence[Losses], tuple[GroupResult, int]]:
    """The smallest radius whose losses stand clear of rounding; what was found, and the number of the next step."""
    best, number, _ = yield from _try(group, seed, number, FEW_PAIRS, SMALL_EPS)
    notes = {"slope": best.slope, "noise": best.noise, "signal": best.signal, "eps": best.eps}
    return GroupResult(best.eps, math.nan, math.nan, best.slope, notes), number


def _measure(
    group: GroupRequest, seed: int, number: int, forwards: int, steps: float
) -> Generator[tuple[Move, ...], Sequence[Losses], tuple[GroupResult, int]]:
    """The numbers of one group, from step ``number`` on; what was found, and the number of the next step."""
    pairs, count = trials(forwards)
    best, number, spent = yield from _try(group, seed, number, pairs, EPS[:count])
    step, number = yield from _rehearse(group, seed, number, best, int(SHARE * forwards) - spent)
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
    return GroupResult(best.eps, lr, clip, slope, notes), number


def _try(
    group: GroupRequest, seed: int, number: int, pairs: int, radii: Sequence[float]
) -> Generator[tuple[Move, ...], Sequence[Losses], tuple[_Trial, int, int]]:
    """Trials of the radii in turn; the best trial, the number of the next step, and the forwards spent.

    Raises:
        RunError: the losses are not finite, or no displacement changes them.
    """
    tried: list[_Trial] = []
    here = math.nan
    for radius in radii if group.eps is None else (group.eps,):
        tiny = Move((Term(direction_seed(seed, number, 0), TINY, group=group.name),))
        pair = [
            Move((Term(direction_seed(seed, number, k), side * radius, group.noise[k % len(group.noise)], group.name),))
            for k in range(pairs)
            for side in (1.0, -1.0)
        ]
        here, up, down, *around = means((yield (HERE, tiny, tiny.scaled(-1.0), *pair)))
        number += 1
        trial = _read(here, (up, down), around, radius)
        if trial is not None:
            tried.append(trial)
            if trial.clear and (trial.sure or group.radius_only):
                break
    what = "" if group.name == "all" else f" along {group.name}"
    if not tried:
        raise RunError(f"the loss is not finite around the starting point{what} (at the point itself: {here})")
    # max() gives the first of equals: the smallest radius that is good enough, or the clearest if none is.
    best = max(
        tried, key=lambda x: (x.clear and (x.sure or group.radius_only), x.live >= LIVE, min(x.signal, SIGNAL), x.live)
    )
    if best.slope == 0.0:
        raise RunError(
            f"no displacement{what} changes the loss: what moves has no part in it, estimator.eps is too small, or an "
            "objective of whole numbers has too few rows to show a change (task.batch_rows)"
        )
    return best, number, len(tried) * (3 + 2 * pairs)


def _unrehearsed(group: GroupRequest, best: _Trial) -> float:
    """The longest step of each direction, per slope, that the trial's curvature allows where nothing is rehearsed."""
    if group.checks:
        bend = max(best.trace, best.trace_error)
    else:
        bend = best.trace if best.sure else 0.0
    return group.newton * UNKNOWN / bend if bend > 0.0 else math.inf


@dataclass(frozen=True, slots=True)
class _Step:
    """What other batches say of a step that one batch asks for, Σ d_k·z_k over a population.

    Attributes:
        share: of the slope Σ d_k² which that batch promises along it, what the others confirm.
        error: standard error of the share.
        bend: curvature along it, over Σ d_k².
    """

    share: float
    error: float
    bend: float


def _rehearse(
    group: GroupRequest, seed: int, number: int, best: _Trial, forwards: int
) -> Generator[tuple[Move, ...], Sequence[Losses], tuple[_Step | None, int]]:
    """Build the step of a large population on one batch, and try it, both ways, on others.

    Noise of a small batch makes most of its slopes; that the others do not confirm. And a step is not a random
    direction: it leans to where the loss falls, which is where it bends most. Of K directions the bend over Σ d_k² is
    tr(H) + (K − 1)·R, with R the Rayleigh quotient of the gradient, which tells it for the N of a step.
    """
    others = min(BATCHES, forwards // 9)
    count = min(DIRECTIONS, forwards - 1 - 3 * others)
    if others < 2 or count < 2 * group.directions:
        return None, number
    first, number = number, number + 1 + others

    def along(k: int, weight: float) -> Term:
        return Term(direction_seed(seed, first, k), weight, group.noise[k % len(group.noise)], group.name)

    here, *around = means((yield (HERE, *(Move((along(k, best.eps),)) for k in range(count)))))
    slopes = {k: (loss - here) / best.eps for k, loss in enumerate(around) if math.isfinite(loss - here)}
    square = sum(d * d for d in slopes.values())
    if square == 0.0:
        return None, first + 1
    size = max(best.eps, RADIUS) / math.sqrt(square)
    there = Move(tuple(along(k, size * d) for k, d in slopes.items()))
    tried = []
    for _ in range(others):
        here, up, down = means((yield (HERE, there, there.scaled(-1.0))))
        if math.isfinite(here + up + down):
            tried.append(((up - down) / (2.0 * size * square), (up + down - 2.0 * here) / (size**2 * square)))
    if len(tried) < 2:
        return None, number
    share, bend = (sum(column) / len(tried) for column in zip(*tried, strict=True))
    error = math.sqrt(sum((x - share) ** 2 for x, _ in tried) / (len(tried) - 1) / len(tried))
    trace = max(best.trace, best.trace_error)
    lean = max(0.0, (bend - trace) / (len(slopes) - 1))
    return _Step(min(max(share, error, LEAST), 1.0), error, trace + (group.directions - 1) * lean), number


@dataclass(frozen=True, slots=True)
class _Trial:
    """The numbers of a trial, as the module's docstring defines them.

    Attributes:
        slope: root mean square of the slopes.
        trace: mean curvature, and its standard error.
        live: share of the pairs whose two losses differ.
    """

    eps: float
    slope: float
    noise: float
    trace: float
    trace_error: float
    live: float

    @property
    def signal(self) -> float:
        return 2.0 * self.eps * self.slope / self.noise

    @property
    def clear(self) -> bool:
        return self.signal >= SIGNAL and self.live >= LIVE

    @property
    def sure(self) -> bool:
        return self.trace > 2.0 * self.trace_error


def _read(here: float, tiny: Sequence[float], around: Sequence[float], eps: float) -> _Trial | None:
    """What a trial's losses say; ``None`` where no pair is finite."""
    pairs = [(a, b) for a, b in zip(around[0::2], around[1::2], strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not pairs or not math.isfinite(here):
        return None
    slope = math.sqrt(sum(((a - b) / (2.0 * eps)) ** 2 for a, b in pairs) / len(pairs))
    bends = [(a + b - 2.0 * here) / eps**2 for a, b in pairs]
    trace = sum(bends) / len(bends)
    spread = sum((h - trace) ** 2 for h in bends) / max(1, len(bends) - 1)
    # One pair cannot tell the trace's own error: it is then taken to be the trace itself, which is doubt enough.
    error = math.sqrt(spread / len(bends)) if len(bends) > 1 else abs(trace)
    # A loss that the tiny displacement leaves as it was still has its own last bit.
    rounding = [abs(x - here) for x in tiny if math.isfinite(x)]
    noise = max(math.sqrt(sum(x * x for x in rounding) / max(1, len(rounding))), abs(here) * 2.0**-24, 2.0**-149)
    live = sum(a != b for a, b in pairs) / len(pairs)
    return _Trial(eps, slope, noise, trace, error, live)
