"""Finding ε, η and C before the first step, from a few losses, so that nobody has to search for them.

One line a trial, on one batch: the point itself, a tiny displacement that shows only the loss's own rounding, and
antithetic pairs at the trial's ε. From them

    noise   = rms of the losses' change under the tiny displacement
    d_k     = (L₊ − L₋) / 2ε              slopes
    h_k     = (L₊ + L₋ − 2L₀) / ε²        curvature along z_k; its mean is E[z·Hz], the trace the noise sees

ε is the first of the trials whose loss differences stand ``SIGNAL`` times above the noise and whose trace is
positive beyond doubt, else the first with signal enough, else the one with most. Along one random direction the loss
falls fastest by a step of 1/E[z·Hz]; a population of N on one batch bears N such steps at once, and ``newton`` says
how much of that is dared. Where the trace is in doubt the step falls back on its length: ``LENGTH`` leaf units for a
direction of typical slope; where it is tiny, ``LONGEST`` bounds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from forq.core import HERE, Method, Move, RunError, Term, direction_seed

EPS = (1e-2, 3e-2, 1e-1)
TINY = 1e-6
SIGNAL = 30.0
LENGTH = 5e-3
LONGEST = 0.1
PAIRS = 8
CLIP = 5.0
SHARE = 0.05

Finish = Callable[[float, float, float, int, Mapping[str, float]], Method]
"""From (eps, lr, clip, first step, what was found) to the method."""


def trials(forwards: int) -> tuple[int, int]:
    """How many antithetic pairs a trial gets, and how many trials, within a twentieth of the run's forwards."""
    budget = int(SHARE * forwards)
    pairs = min(PAIRS, max(1, (budget - 3) // 2))
    return pairs, max(1, min(len(EPS), budget // (3 + 2 * pairs)))


def calibrate(
    *,
    seed: int,
    noise: Sequence[str],
    directions: int,
    forwards: int,
    newton: float,
    eps: float | None,
    finish: Finish,
) -> Generator[tuple[Move, ...], Sequence[float], Method]:
    """Measure, then return the method.

    Args:
        directions: N of the estimator, whose mean of N slopes the step multiplies.
        forwards: of the whole run; at most a twentieth of them (five at the least) go into this.
        newton: share of the greediest stable step that is taken, 0 … 1.
        eps: a radius the user insists on; otherwise the trials choose.

    Raises:
        RunError: the losses are not finite, or no displacement changes them.
    """
    pairs, count = trials(forwards)
    tried: list[_Trial] = []
    for number, radius in enumerate(EPS[:count] if eps is None else (eps,)):
        tiny = Move((Term(direction_seed(seed, number, 0), TINY),))
        pair = [
            Move((Term(direction_seed(seed, number, k), side * radius, noise[k % len(noise)]),))
            for k in range(pairs)
            for side in (1.0, -1.0)
        ]
        here, up, down, *around = yield (HERE, tiny, tiny.scaled(-1.0), *pair)
        trial = _read(here, (up, down), around, radius)
        if trial is not None:
            tried.append(trial)
            if trial.signal >= SIGNAL and trial.sure:
                break
    if not tried:
        raise RunError(f"the loss is not finite around the starting point (at the point itself: {here})")
    # max() gives the first of equals: the smallest radius that is good enough, or the clearest if none is.
    best = max(tried, key=lambda one: (one.signal >= SIGNAL and one.sure, min(one.signal, SIGNAL)))
    if best.slope == 0.0:
        raise RunError("no displacement changes the loss: what moves has no part in it, or estimator.eps is too small")
    each = min(newton / best.trace if best.sure else LENGTH / best.slope, LONGEST / best.slope)
    lr, clip = each * directions, CLIP * best.slope
    found = {name: getattr(best, name) for name in ("slope", "noise", "signal", "trace", "trace_error")}
    return finish(best.eps, lr, clip, number + 1, {**found, "eps": best.eps, "lr": lr, "clip": clip})


@dataclass(frozen=True, slots=True)
class _Trial:
    eps: float
    slope: float
    noise: float
    trace: float
    trace_error: float

    @property
    def signal(self) -> float:
        return 2.0 * self.eps * self.slope / self.noise

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
    return _Trial(eps, slope, noise, trace, error)
