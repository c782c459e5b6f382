"""A direction for each row of the batch: one forward pass measures as many directions as there are rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from forq.scalars.directions import Directions
from forq.scalars.losses import Losses, Own
from forq.scalars.losses import rows as by_rows
from forq.scalars.moves import HERE, OUTPUTS, Move, Term, direction_seed
from forq.scalars.protocols import Estimate
from forq.scalars.quadratic import kind_of, quadratic

SHARED = 2
"""Directions of a step that all rows share: their slopes say how far rows agree, which no row's own direction can."""


@dataclass(frozen=True, slots=True)
class ByRow(Directions):
    """``d_kn = (ℓ_n(x + ε·z_kn) − ℓ_n(x)) / ε`` for every row n of the batch; the mean of d_kn·z_kn over k and n
    estimates the gradient, since the loss is the mean of the rows' losses ℓ_n.

    A step of N directions costs N + 1 forwards: the point itself, ``SHARED`` directions that all rows share, and
    N − SHARED displaced forwards in which each row has a direction of its own. With B rows these are B·(N − SHARED)
    directions. (Of one or two directions, one is shared.) Each is measured on one row only, so the variance of its
    slope holds B times the noise of a batch; it gains where rows agree. Flipout (Wen et al. 2018, arXiv 1803.04386)
    has signs by example for gradients; GRZO (arXiv 2606.02857) takes them to forward-only steps.
    """

    needs_rows: ClassVar[bool] = True
    by_row: ClassVar[bool] = True
    shared_form: ClassVar[str | None] = "one_sided"

    @property
    def forwards(self) -> int:
        """Forward passes a step costs."""
        return self.directions + 1

    @property
    def turns(self) -> int:
        """Directions of a step that go round groups and laws."""
        return self._shared

    def ask(self, step: int) -> tuple[Move, ...]:
        """The point itself, the shared directions, then those of the rows."""
        shared = (self.probe(step, k) for k in range(self._shared))
        own = (self._own(step, k) for k in range(self._shared, self.directions))
        return (HERE, *shared, *own)

    def tell(self, step: int, losses: Sequence[Losses]) -> Estimate:
        """The mean over all directions whose loss is finite; none if the point's own loss is not."""
        here, together = losses[0], losses[1 : self._shared + 1]
        bad = sum(not math.isfinite(answer.mean) for answer in losses)
        whole = [k for k, answer in enumerate(together) if math.isfinite(here.mean) and math.isfinite(answer.mean)]
        if not whole:  # nothing says how far rows agree
            return self.estimate(step, {}, here.mean, bad)
        radii = [self.radius(step, k) for k in whole]
        model = quadratic(losses[: self._shared + 1], whole, [kind_of(self.probe(step, k)) for k in whole], radii)
        rises = [together[k].mean - here.mean for k in whole] if model is None else model.rises
        shared = [(self._term(step, k, rise / r), rise / r) for k, rise, r in zip(whole, rises, radii, strict=True)]
        apart, own = [], []
        for k in range(self._shared, self.directions):
            found = self._rows_of(losses[k + 1], here)
            if not all(map(math.isfinite, (*found.rises, found.bend))):
                continue
            own.append(found)
            probe = self._own(step, k).terms[0]
            slopes = (rise / probe.weight for rise in found.rises)
            apart += [(replace(probe, row=row, weight=d), d) for row, d in enumerate(slopes)]
        measured = (*apart, *shared)
        move = Move(tuple(replace(term, weight=d / len(measured)) for term, d in measured))
        slopes_of_all = tuple(d for _, d in measured)
        estimate = Estimate(move, slopes_of_all, here.mean, bad)
        if model is None:
            return estimate
        return replace(estimate, quadratic=replace(model, own=tuple(own), own_radius=self.output_radius))

    @property
    def _shared(self) -> int:
        return min(SHARED, max(self.directions - 1, 1))

    def _own(self, step: int, k: int) -> Move:
        return Move((Term(direction_seed(self.seed, step, k), self.output_radius, group=OUTPUTS),), by_row=True)

    @staticmethod
    def _rows_of(answer: Losses, here: Losses) -> Own:
        if answer.own is not None:
            return answer.own
        point, displaced = by_rows((here, answer))
        return Own(tuple(there - before for there, before in zip(displaced, point, strict=True)), 0.0)


make = ByRow
"""A recipe calls ``make(seed=, eps=, directions=, noise=, …)``."""
