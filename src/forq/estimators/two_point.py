"""Two-sided simultaneous perturbation: the estimator of SPSA, MeZO and QZO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forq.core import ConfigError, Estimate, Move, Term, direction_seed


@dataclass(frozen=True, slots=True)
class TwoPoint:
    """``d = (L(x + ε·u·z) − L(x − ε·u·z)) / 2ε``, and d·z estimates the gradient without bias up to ε².

    Averages ``directions`` independent ones (Spall 1992; MeZO, arXiv 2305.17333, definition 1; QZO,
    arXiv 2505.13430, equation 4). Costs two forwards for each direction.

    Args:
        seed: the run's seed.
        eps: probe radius in leaf units, > 0.
        directions: directions averaged in one step, ≥ 1.
        noise: laws of z; direction k takes the k-th, round and round.
        group: the leaves that are probed.

    Raises:
        ConfigError: a value is out of range.
    """

    seed: int
    eps: float
    directions: int = 1
    noise: tuple[str, ...] = ("rademacher",)
    group: str = "all"

    def __post_init__(self) -> None:
        if not (self.eps > 0 and math.isfinite(self.eps)):
            raise ConfigError(f"estimator.eps must be a positive number, found {self.eps}")
        if self.directions < 1:
            raise ConfigError(f"estimator.directions must be at least 1, found {self.directions}")
        if not self.noise:
            raise ConfigError("estimator.noise must name at least one law")

    @property
    def forwards(self) -> int:
        """Forward passes a step costs."""
        return 2 * self.directions

    def _term(self, step: int, k: int, weight: float) -> Term:
        return Term(direction_seed(self.seed, step, k), weight, self.noise[k % len(self.noise)], self.group)

    def ask(self, step: int) -> tuple[Move, ...]:
        """``(+ε z₀, −ε z₀, +ε z₁, −ε z₁, …)``."""
        return tuple(
            Move((self._term(step, k, side * self.eps),)) for k in range(self.directions) for side in (1.0, -1.0)
        )

    def tell(self, step: int, losses: Sequence[float]) -> Estimate:
        """The mean over the directions whose two losses are both finite."""
        pairs = list(zip(losses[0::2], losses[1::2], strict=True))
        whole = [k for k, pair in enumerate(pairs) if math.isfinite(pair[0]) and math.isfinite(pair[1])]
        slopes = tuple((pairs[k][0] - pairs[k][1]) / (2.0 * self.eps) for k in whole)
        terms = tuple(self._term(step, k, d / len(whole)) for k, d in zip(whole, slopes, strict=True))
        mean = sum(pairs[k][0] + pairs[k][1] for k in whole) / (2 * len(whole)) if whole else math.nan
        return Estimate(Move(terms), slopes, mean, bad=sum(not math.isfinite(x) for x in losses))


make = TwoPoint
"""How a recipe makes one: ``make(seed=, eps=, directions=, noise=)``."""
