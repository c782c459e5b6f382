"""GRZO: two forward passes in which every row has its own direction; slopes are divided by their spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from forq.scalars.directions import Directions
from forq.scalars.losses import Losses
from forq.scalars.losses import rows as by_rows
from forq.scalars.moves import OUTPUTS, Move, Term, direction_seed
from forq.scalars.protocols import Estimate


@dataclass(frozen=True, slots=True)
class GRZO(Directions):
    """``d_n = (ℓ_n(x + ε·z_n) − ℓ_n(x − ε·z_n)) / 2ε`` for every row n of the batch; the estimate is the mean of
    ``d_n / s · z_n``, with s the standard deviation of the batch's d_n.

    Costs two forwards for each of ``directions``, and measures as many slopes as the batch has rows. A learning rate
    is a length here, since a slope has no unit left. Source: GRZO (arXiv 2606.02857), where z_n has signs by input
    and by output over a shared Gaussian matrix, and weights are floats. Here z_n is a sign for each output of a
    layer, and multiplies its quantization scales.
    """

    needs_rows: ClassVar[bool] = True
    by_row: ClassVar[bool] = True

    @property
    def forwards(self) -> int:
        """Forward passes a step costs."""
        return 2 * self.directions

    def ask(self, step: int) -> tuple[Move, ...]:
        """``(+ε z₀, −ε z₀, +ε z₁, −ε z₁, …)``, each z with a direction for every row."""
        terms = (self._own(step, k, side * self.output_radius) for k in range(self.directions) for side in (1.0, -1.0))
        return tuple(Move((term,), by_row=True) for term in terms)

    def tell(self, step: int, losses: Sequence[Losses]) -> Estimate:
        """The mean over all rows; directions with a loss that is not finite are dropped, and rows of equal slopes."""
        pairs = [losses[2 * k : 2 * k + 2] for k in range(self.directions)]
        whole = [k for k, pair in enumerate(pairs) if all(_finite(answer) for answer in pair)]
        terms, seen = [], []
        for k in whole:
            up, down = by_rows(pairs[k])
            slopes = [(high - low) / (2.0 * self.output_radius) for high, low in zip(up, down, strict=True)]
            spread = statistics.pstdev(slopes)
            if spread > 0.0:
                terms += [self._own(step, k, d / spread, row) for row, d in enumerate(slopes)]
                seen += [d / spread for d in slopes]
        move = Move(tuple(Term(t.seed, t.weight / len(terms), t.noise, t.group, t.row) for t in terms))
        mean = statistics.fmean(answer.mean for k in whole for answer in pairs[k]) if whole else math.nan
        return Estimate(move, tuple(seen), mean, sum(not math.isfinite(answer.mean) for answer in losses))

    def _own(self, step: int, k: int, weight: float, row: int = 0) -> Term:
        return Term(direction_seed(self.seed, step, k), weight, group=OUTPUTS, row=row)


def _finite(answer: Losses) -> bool:
    return all(map(math.isfinite, (answer.mean, *(answer.each or ()))))


make = GRZO
"""A recipe calls ``make(seed=, eps=, directions=, noise=, …)``."""
