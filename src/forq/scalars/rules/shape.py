"""Fitness shaping: what a population's slopes say of each other, not how large they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from forq.errors import ConfigError
from forq.scalars.protocols import Estimate, State


@dataclass(frozen=True, slots=True)
class Shape:
    """Slopes of a population in standard units, so that η means the same all through a run (QES, arXiv 2602.03120).

    ``zscore``: (d − mean) / deviation. ``rank``: centred ranks, evenly from −½ to ½; ties take the mean of their ranks.
    A population of one, or one whose slopes are all alike, keeps none of them.

    Raises:
        ConfigError: no such shape.
    """

    kind: Literal["zscore", "rank"]

    def __post_init__(self) -> None:
        if self.kind not in ("zscore", "rank"):
            raise ConfigError(f"rule.shape: expected zscore or rank, found {self.kind!r}")

    def init(self) -> State:
        return {}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        terms = list(estimate.move.terms)
        for group in {term.group for term in terms}:
            mine = [k for k, term in enumerate(terms) if term.group == group]
            slopes = [terms[k].weight for k in mine]
            for k, x in zip(mine, _zscores(slopes) if self.kind == "zscore" else _ranks(slopes), strict=True):
                terms[k] = replace(terms[k], weight=x / len(mine))
        return replace(estimate, move=replace(estimate.move, terms=tuple(terms))), state


def _zscores(slopes: list[float]) -> list[float]:
    mean = math.fsum(slopes) / len(slopes)
    deviation = math.sqrt(math.fsum((d - mean) ** 2 for d in slopes) / len(slopes))
    return [(d - mean) / deviation if deviation > 0.0 else 0.0 for d in slopes]


def _ranks(slopes: list[float]) -> list[float]:
    if len(slopes) < 2:
        return [0.0] * len(slopes)
    below = [sum(other < d for other in slopes) for d in slopes]
    equal = [sum(other == d for other in slopes) for d in slopes]
    return [(b + (e - 1) / 2) / (len(slopes) - 1) - 0.5 for b, e in zip(below, equal, strict=True)]


def example() -> Shape:
    """An instance for the contract tests."""
    return Shape("zscore")
