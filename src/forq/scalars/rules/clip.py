"""Directional derivative clipping (DDC), so that one bad batch cannot ruin the scales."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from forq.scalars.chain import Inputs, NoSettings, Registration
from forq.scalars.directions import PerGroup, by_group, owner
from forq.scalars.protocols import Estimate, State


@dataclass(frozen=True, slots=True)
class Clip:
    """Bound each directional derivative: ``d_k ← min(max(d_k, −limit), limit)``.

    Bounds the scalars, not the vector, so directions that agree are not shrunk (QZO, arXiv 2505.13430,
    equation 6). A heuristic: the clipped estimate is biased wherever it clips.

    Args:
        limit: largest \\|d_k\\| kept, in loss per leaf unit, > 0; of all leaves or by group. A group without a limit
            keeps its slopes. The paper uses 100 with the absolute probe.

    Raises:
        ConfigError: the limit is not a positive number.
    """

    limit: PerGroup

    def __post_init__(self) -> None:
        by_group(self.limit, "rule.clip")

    def init(self) -> State:
        return {}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        limits = by_group(self.limit, "rule.clip")
        bounds = [limits.get(owner(term.group, limits), math.inf) for term in estimate.move.terms]
        held = tuple(min(max(d, -bound), bound) for d, bound in zip(estimate.slopes, bounds, strict=True))
        terms = tuple(
            # A term's weight is d_k over the number of directions: scale it by what the bound leaves of d_k.
            replace(term, weight=term.weight * (h / d)) if d else term
            for term, d, h in zip(estimate.move.terms, estimate.slopes, held, strict=True)
        )
        return replace(estimate, move=replace(estimate.move, terms=terms), slopes=held), state


def make(settings: NoSettings, inputs: Inputs) -> Clip | None:
    """The rule, where a group has a bound."""
    return Clip(inputs.clips) if inputs.clips else None


registration = Registration(order=10, settings=NoSettings, make=make)


def example() -> Clip:
    """An instance for the contract tests."""
    return Clip(limit=0.5)
