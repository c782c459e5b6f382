"""Directional derivative clipping (DDC), which keeps one bad batch from throwing the scales away."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from forq.core import ConfigError, Estimate, State


@dataclass(frozen=True, slots=True)
class Clip:
    """Bound each directional derivative: ``d_k ← min(max(d_k, −limit), limit)``.

    Bounds the scalars, not the vector, so directions that agree are not shrunk (QZO, arXiv 2505.13430,
    equation 6). A heuristic: the clipped estimate is biased wherever it clips.

    Args:
        limit: largest \\|d_k\\| kept, in loss per leaf unit; > 0. The paper uses 100 with the absolute probe.

    Raises:
        ConfigError: the limit is not a positive number.
    """

    limit: float

    def __post_init__(self) -> None:
        if not (self.limit > 0 and math.isfinite(self.limit)):
            raise ConfigError(f"rule.clip must be a positive number, found {self.limit}")

    def init(self) -> State:
        return {}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        held = tuple(min(max(d, -self.limit), self.limit) for d in estimate.slopes)
        terms = tuple(
            # A term's weight is d_k over the number of directions: scale it by what the bound leaves of d_k.
            replace(term, weight=term.weight * (h / d)) if d else term
            for term, d, h in zip(estimate.move.terms, estimate.slopes, held, strict=True)
        )
        return replace(estimate, move=replace(estimate.move, terms=terms), slopes=held), state


def example() -> Clip:
    """An instance for the contract tests."""
    return Clip(limit=0.5)
