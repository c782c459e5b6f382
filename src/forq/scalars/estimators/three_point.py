"""Two-sided probes around a measured point: slopes, and whether either side is better than staying."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from forq.scalars.directions import Directions
from forq.scalars.losses import Losses, means
from forq.scalars.moves import HERE, Move
from forq.scalars.protocols import Estimate


@dataclass(frozen=True, slots=True)
class ThreePoint(Directions):
    """``d = (L₊ − L₋) / 2ε`` as two_point, and ``L₀ − min(L₊, L₋)``, what the better side of each direction gains.

    Costs two forwards for each direction and one for the point. An audit needs the gains
    (:mod:`forq.scalars.rules.audit`).
    """

    @property
    def forwards(self) -> int:
        """Forward passes a step costs."""
        return 2 * self.directions + 1

    def ask(self, step: int) -> tuple[Move, ...]:
        """``(0, +ε z₀, −ε z₀, +ε z₁, −ε z₁, …)``."""
        return (HERE, *(self.probe(step, k, side) for k in range(self.directions) for side in (1.0, -1.0)))

    def tell(self, step: int, losses: Sequence[Losses]) -> Estimate:
        """The mean over the directions whose losses are finite; none if the point's own loss is not."""
        here, *around = values = means(losses)
        pairs = list(zip(around[0::2], around[1::2], strict=True))
        whole = [k for k, (up, down) in enumerate(pairs) if math.isfinite(up + down + here)]
        slopes = {k: (pairs[k][0] - pairs[k][1]) / (2.0 * self.radius(step, k)) for k in whole}
        bad = sum(not math.isfinite(x) for x in values)
        return replace(self.estimate(step, slopes, here, bad), gains=tuple(here - min(pairs[k]) for k in whole))


make = ThreePoint
"""A recipe calls ``make(seed=, eps=, directions=, noise=, …)``."""
