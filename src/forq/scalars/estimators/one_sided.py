"""One-sided probes around a measured point: N directions take N + 1 forward passes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from forq.scalars.directions import Directions
from forq.scalars.losses import Losses, means
from forq.scalars.moves import HERE, Move
from forq.scalars.protocols import Estimate
from forq.scalars.quadratic import kind_of, quadratic


@dataclass(frozen=True, slots=True)
class OneSided(Directions):
    """``d_k = (L(x + ε·u·z_k) − L(x)) / ε``; the mean of d_k·z_k estimates the gradient.

    N directions cost N + 1 forwards instead of 2N. Each d_k carries ½ε·z·Hz of curvature, which averages out of
    the estimate: z and −z are equally likely. Where the oracle measures curvature too, it is subtracted, and the
    estimate holds the quadratic model of the loss. Source: FZOO, arXiv 2506.09034, section 3.
    """

    @property
    def forwards(self) -> int:
        """Forward passes a step costs."""
        return self.directions + 1

    def ask(self, step: int) -> tuple[Move, ...]:
        """The point itself, then ``+ε z_k`` for every direction."""
        return (HERE, *(self.probe(step, k) for k in range(self.directions)))

    def tell(self, step: int, losses: Sequence[Losses]) -> Estimate:
        """The mean over the directions whose loss is finite; none if the point's own loss is not."""
        here, *around = values = means(losses)
        whole = [k for k, loss in enumerate(around) if math.isfinite(loss) and math.isfinite(here)]
        bad = sum(not math.isfinite(x) for x in values)
        radii = {k: self.radius(step, k) for k in whole}
        model = quadratic(losses, whole, [kind_of(self.probe(step, k)) for k in whole], tuple(radii.values()))
        if model is None:
            return self.estimate(step, {k: (around[k] - here) / radii[k] for k in whole}, here, bad)
        slopes = {k: rise / radii[k] for k, rise in zip(whole, model.rises, strict=True)}
        return replace(self.estimate(step, slopes, here, bad), quadratic=model)


make = OneSided
"""A recipe calls ``make(seed=, eps=, directions=, noise=, …)``."""
