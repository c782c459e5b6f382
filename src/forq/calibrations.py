"""Finding ε, η and C before the first step, from a few losses, so that nobody has to search for them.

One line a trial, on one batch: the point itself, a tiny displacement that shows only the loss's own rounding, and
antithetic pairs at the trial's ε. From them

    noise   = rms of the losses' change under the tiny displacement
    d_k     = (L₊ − L₋) / 2ε              slopes
    h_k     = (L₊ + L₋ − 2L₀) / ε²        curvature along z_k; its mean is the trace of the Hessian

ε is the first of the trials whose loss differences stand ``SIGNAL`` times above the noise and whose trace is
positive beyond doubt. Along one random direction the loss falls fastest by a step of 1/tr(H); a population of N
on one batch bears N such steps at once, and ``newton`` says how much of that is dared. Where no trial shows a
trace the step falls back on its length: ``LENGTH`` of every coordinate for each direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence

from forq.core import HERE, Method, Move, RunError, Term, direction_seed

EPS = (1e-2, 3e-2, 1e-1)
TINY = 1e-6
SIGNAL = 30.0
LENGTH = 5e-3
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
        forwards: of the whole run; at most a twentieth of them (three at the least) go into this.
        newton: share of the greediest stable step that is taken, 0 … 1.
        eps: a radius the user insists on; otherwise the trials choose.

    Raises:
        RunError: the losses are not finite, or no displacement changes them.
    """
    pairs, count = trials(forwards)
    radii = EPS[:count] if eps is None else (eps,)
    for number, radius in enumerate(radii):
        signs = [Term(direction_seed(seed, number, k), radius, noise[k % len(noise)]) for k in range(pairs)]
        tiny = [Move((Term(direction_seed(seed, number, k), side * TINY),)) for k in (0,) for side in (1.0, -1.0)]
        around = [Move((term,)).scaled(side) for term in signs for side in (1.0, -1.0)]
        here, *losses = yield (HERE, *tiny, *around)
        found = _read(here, losses[:2], losses[2:], radius)
        if found["signal"] >= SIGNAL and found["trace"] > 2.0 * found["trace_error"]:
            break
    if not math.isfinite(found["slope"]):
        raise RunError(f"the loss is not finite around the starting point (at the point itself: {here})")
    if found["slope"] == 0.0:
        raise RunError("no displacement changes the loss: what moves has no part in it, or estimator.eps is too small")
    sure = found["trace"] > 2.0 * found["trace_error"]
    each = newton / found["trace"] if sure else LENGTH / found["slope"]
    lr, clip = each * directions, CLIP * found["slope"]
    return finish(radius, lr, clip, number + 1, {**found, "eps": radius, "lr": lr, "clip": clip})


def _read(here: float, tiny: Sequence[float], around: Sequence[float], eps: float) -> dict[str, float]:
    pairs = [(a, b) for a, b in zip(around[0::2], around[1::2], strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not pairs or not math.isfinite(here):
        return dict.fromkeys(("slope", "noise", "signal", "trace", "trace_error"), math.nan)
    slope = math.sqrt(sum(((a - b) / (2.0 * eps)) ** 2 for a, b in pairs) / len(pairs))
    bends = [(a + b - 2.0 * here) / eps**2 for a, b in pairs]
    trace = sum(bends) / len(bends)
    # With one pair nothing tells the trace's own error; it is believed as far as it goes.
    spread = sum((h - trace) ** 2 for h in bends) / max(1, len(bends) - 1)
    # A loss that the tiny step leaves unchanged still has float32's own last bit.
    noise = max(math.sqrt(sum((x - here) ** 2 for x in tiny) / len(tiny)), abs(here) * 2.0**-24)
    return {
        "slope": slope,
        "noise": noise,
        "signal": 2.0 * eps * slope / noise,
        "trace": trace,
        "trace_error": math.sqrt(spread / len(bends)),
    }
