"""Two-sided simultaneous perturbation: the estimator of SPSA, MeZO and QZO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forq.scalars.directions import Directions
from forq.scalars.losses import Losses, means
from forq.scalars.moves import Move
from forq.scalars.protocols import Estimate


@dataclass(frozen=True, slots=True)
class TwoPoint(Directions):
    """``d = (L(x + ε·u·z) − L(x − ε·u·z)) / 2ε``, and d·z estimates the gradient without bias up to ε².

    The estimate is the mean over ``directions`` independent z (Spall 1992; MeZO, arXiv 2305.17333,
    definition 1; QZO, arXiv 2505.13430, equation 4). Costs two forwards for each direction.
    """

    @property
    def forwards(self) -> int:
        """Forward passes a step costs."""
        return 2 * self.directions

    def ask(self, step: int) -> tuple[Move, ...]:
        """``(+ε z₀, −ε z₀, +ε z₁, −ε z₁, …)``."""
        return tuple(self.probe(step, k, side) for k in range(self.directions) for side in (1.0, -1.0))

    def tell(self, step: int, losses: Sequence[Losses]) -> Estimate:
        """The mean over the directions whose two losses are both finite."""
        values = means(losses)
        pairs = list(zip(values[0::2], values[1::2], strict=True))
        whole = [k for k, pair in enumerate(pairs) if math.isfinite(pair[0]) and math.isfinite(pair[1])]
        slopes = {k: (pairs[k][0] - pairs[k][1]) / (2.0 * self.radius(step, k)) for k in whole}
        mean = sum(pairs[k][0] + pairs[k][1] for k in whole) / (2 * len(whole)) if whole else math.nan
        return self.estimate(step, slopes, mean, bad=sum(not math.isfinite(x) for x in values))


make = TwoPoint
"""A recipe calls ``make(seed=, eps=, directions=, noise=, …)``."""
