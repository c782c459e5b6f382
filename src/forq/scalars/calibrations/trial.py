"""Trials of probe radii: slopes, curvature and the noise of the loss from a few probes around the starting point.

A trial is one line of the journal, on one batch: the point itself, a tiny displacement that shows the rounding of the
loss alone, and antithetic pairs at the trial's ε. From them

    noise   = rms of the losses' change under the tiny displacement
    d_k     = (L₊ − L₋) / 2ε              slopes
    h_k     = (L₊ + L₋ − 2L₀) / ε²        curvature along z_k; its mean is E[z·Hz], the trace the noise sees

ε is the first of the trials whose loss differences stand ``SIGNAL`` times above the noise, of whose pairs ``LIVE``
differ at all (an accuracy is the same for near points), and whose trace is positive beyond doubt; else the first with
signal enough, else the one with most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from forq.errors import RunError
from forq.scalars.calibrations.group import GroupRequest, Probing
from forq.scalars.losses import means
from forq.scalars.moves import HERE, Move, Term, direction_seed

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


@dataclass(frozen=True, slots=True)
class Trial:
    """The numbers of a trial, as the module's docstring defines them.

    Attributes:
        slope: root mean square of the slopes.
        trace, trace_error: mean curvature, and its standard error.
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
        """Size of a loss difference over the noise of the loss."""
        return 2.0 * self.eps * self.slope / self.noise

    @property
    def clear(self) -> bool:
        """Whether the loss differences stand clear of the noise."""
        return self.signal >= SIGNAL and self.live >= LIVE

    @property
    def sure(self) -> bool:
        """Whether the trace is positive beyond doubt."""
        return self.trace > 2.0 * self.trace_error


class Tried(NamedTuple):
    """The best of several trials, the number of the next step, and the forward passes spent."""

    best: Trial
    number: int
    forwards: int


def try_radii(group: GroupRequest, seed: int, number: int, pairs: int, radii: Sequence[float]) -> Probing[Tried]:
    """Try the radii in turn, from step ``number`` on, until one is good enough; a radius of the user's is tried alone.

    Args:
        pairs: antithetic pairs of each trial.

    Raises:
        RunError: the losses are not finite, or no displacement changes them.
    """
    tried: list[Trial] = []
    here = math.nan
    for radius in radii if group.eps is None else (group.eps,):
        tiny = Move((Term(direction_seed(seed, number, 0), TINY, group=group.name),))
        pair = [Move((group.term(seed, number, k, side * radius),)) for k in range(pairs) for side in (1.0, -1.0)]
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
    return Tried(best, number, len(tried) * (3 + 2 * pairs))


def _read(here: float, tiny: Sequence[float], around: Sequence[float], eps: float) -> Trial | None:
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
    return Trial(eps, slope, noise, trace, error, live)
