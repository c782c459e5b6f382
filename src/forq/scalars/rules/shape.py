"""Fitness shaping: the slopes of a step are replaced by z-scores or ranks, so that their size does not matter."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from forq.errors import ConfigError
from forq.scalars.chain import Choices, Frozen, Inputs, Registration
from forq.scalars.protocols import Estimate, State


@dataclass(frozen=True, slots=True)
class Shape:
    """Slopes of a population in standard units, so that η means the same all through a run (QES, arXiv 2602.03120).

    ``zscore``: (d − mean) / deviation. ``rank``: centred ranks, evenly from −½ to ½; ties take the mean of their ranks.
    Where there is one direction only, or all slopes are equal, the weights become 0.

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
            places = [k for k, term in enumerate(terms) if term.group == group]
            slopes = [terms[k].weight for k in places]
            for k, x in zip(places, _zscores(slopes) if self.kind == "zscore" else _ranks(slopes), strict=True):
                terms[k] = replace(terms[k], weight=x / len(places))
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


class Settings(Frozen):
    """
    Attributes:
        shape: slopes of a population in standard units, by ``zscore`` or by ``rank``. A learning rate of ``auto`` then
            takes their sum.
    """

    shape: Literal["off", "zscore", "rank"] = "off"


def make(settings: Settings, inputs: Inputs) -> Shape | None:
    """The rule, unless ``shape`` is off."""
    return None if settings.shape == "off" else Shape(settings.shape)


def check(settings: Settings, choices: Choices) -> None:
    """A shape needs several directions."""
    if settings.shape != "off" and choices.directions < 2:
        raise ConfigError(
            "rule.shape compares the directions of a step: expected estimator.directions of 2 or more, found "
            f"{choices.directions}"
        )


registration = Registration(
    order=30, settings=Settings, make=make, check=check, standardises=lambda settings: settings.shape != "off"
)


def example() -> Shape:
    """An instance for the contract tests."""
    return Shape("zscore")
