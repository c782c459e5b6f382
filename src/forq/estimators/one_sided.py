"""One-sided probes around one measured point: a direction for little more than one forward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forq.core import HERE, ConfigError, Estimate, Move, Term, direction_seed


@dataclass(frozen=True, slots=True)
class OneSided:
    """``d_k = (L(x + ε·u·z_k) − L(x)) / ε``; the mean of d_k·z_k estimates the gradient.

    N directions cost N + 1 forwards instead of 2N. Each d_k carries ½ε·z·Hz of curvature, which is odd-free:
    it averages out of the estimate (z and −z are equally likely) and its mean measures the trace of H for
    nothing, ``curvature = 2·mean(L_k − L)/ε²``. Source: FZOO, arXiv 2506.09034, section 3.

    Args:
        seed: the run's seed.
        eps: probe radius in leaf units, > 0.
        directions: N ≥ 1.
        noise: laws of z, symmetric about zero; direction k takes the k-th, round and round.
        group: the leaves that are probed.

    Raises:
        ConfigError: a value is out of range.
    """

    seed: int
    eps: float
    directions: int = 8
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
        return self.directions + 1

    def _term(self, step: int, k: int, weight: float) -> Term:
        return Term(direction_seed(self.seed, step, k), weight, self.noise[k % len(self.noise)], self.group)

    def ask(self, step: int) -> tuple[Move, ...]:
        """The point itself, then ``+ε z_k`` for every direction."""
        return (HERE, *(Move((self._term(step, k, self.eps),)) for k in range(self.directions)))

    def tell(self, step: int, losses: Sequence[float]) -> Estimate:
        """The mean over the directions whose loss is finite; none if the point's own loss is not."""
        here, *around = losses
        whole = [k for k, loss in enumerate(around) if math.isfinite(loss) and math.isfinite(here)]
        slopes = tuple((around[k] - here) / self.eps for k in whole)
        terms = tuple(self._term(step, k, d / len(whole)) for k, d in zip(whole, slopes, strict=True))
        curvature = 2.0 * sum(slopes) / (len(slopes) * self.eps) if slopes else None
        bad = sum(not math.isfinite(x) for x in losses)
        return Estimate(Move(terms), slopes, here, bad=bad, curvature=curvature)


make = OneSided
"""How a recipe makes one: ``make(seed=, eps=, directions=, noise=)``."""
