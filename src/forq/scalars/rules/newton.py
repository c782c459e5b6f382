"""The Gauss–Newton step in the subspace of a step's directions, as long as rows that did not ask for it confirm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from forq.errors import ConfigError
from forq.scalars.chain import Choices, Frozen, Inputs, Registration
from forq.scalars.moves import Move
from forq.scalars.protocols import Estimate, Json, State
from forq.scalars.quadratic import DAMPINGS

MEMORY = 0.03
"""Weight of the latest step in what the steps confirm."""

DOUBT = 1
"""Steps that confirmed nothing, and are counted before the first."""


@dataclass(frozen=True, slots=True)
class Newton:
    """``x ← x − share·m·(1 + λ)·(F + λD)⁻¹·ĝ`` in the step's directions.

    F is the Fisher matrix and D its mean diagonal (:mod:`forq.scalars.quadratic`). Every step also measures, for some
    dampings λ, the slope s and the curvature c along the step of a part of the batch, on the rest of it. Means of both
    over the last steps say what a step gains, s²/2c, and how long it should be, m = −s/c. The damping of the largest
    gain is used. Few rows overfit: they ask for a step that other rows do not confirm, so m falls, or λ rises. Of s its
    standard error is taken off, since a step that is too long costs more than one that is too short.

    Args:
        share: of the best length, 0 … 1.
        reach: most that a step may change the predictions on its batch, as the curvature aᵀFa along it: twice the mean
            Kullback–Leibler divergence, in nats. Beyond, the quadratic model is not to be trusted.

    Raises:
        ConfigError: a value is out of range.
    """

    share: float
    reach: float

    def __post_init__(self) -> None:
        if not (0.0 < self.share <= 1.0 and 0.0 < self.reach < math.inf):
            raise ConfigError(
                f"rule.newton and rule.reach: expected 0 … 1 and a positive number, found {self.share} and {self.reach}"
            )

    def init(self) -> State:
        none = [0.0] * len(DAMPINGS)
        return {"steps": 0, "slopes": none, "squares": none, "bends": none}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        model = estimate.quadratic
        if model is None:  # the loss at the point itself is not finite
            return replace(estimate, move=Move()), state
        after = _remembered(state, model.confirmed)
        best, length = _best(after)
        way = model.step(DAMPINGS[best])
        bend = model.bend(way)
        if bend > 0.0:
            length = min(self.share * length, math.sqrt(self.reach / bend))
        terms = tuple(
            replace(term, weight=length * x * radius)
            for term, x, radius in zip(estimate.move.terms, way, model.radii, strict=True)
        )
        return replace(estimate, move=Move(terms)), after


def _remembered(state: State, confirmed: Sequence[tuple[float, float]]) -> State:
    """The state after one more step: running means of slopes, of their squares, and of curvatures."""
    steps = state["steps"]
    assert isinstance(steps, int)
    slopes, squares, bends = (_numbers(state[name]) for name in ("slopes", "squares", "bends"))
    weight = max(MEMORY, 1.0 / (steps + 1 + DOUBT))
    for place, (slope, bend) in enumerate(confirmed):
        slopes[place] += weight * (slope - slopes[place])
        squares[place] += weight * (slope * slope - squares[place])
        bends[place] += max(MEMORY, 1.0 / (steps + 1)) * (bend - bends[place])
    return {"steps": steps + 1, "slopes": slopes, "squares": squares, "bends": bends}


def _best(state: State) -> tuple[int, float]:
    """The place of the damping that gains most, and the best length of its step, 0 … 1."""
    steps = state["steps"]
    assert isinstance(steps, int)
    slopes, squares, bends = (_numbers(state[name]) for name in ("slopes", "squares", "bends"))
    count = min(steps + DOUBT, 2.0 / MEMORY - 1.0)
    sure = [s + math.sqrt(max(square - s * s, 0.0) / count) for s, square in zip(slopes, squares, strict=True)]
    gains = [s * s / c if s < 0.0 < c else 0.0 for s, c in zip(sure, bends, strict=True)]
    best = max(range(len(gains)), key=lambda place: gains[place])
    return best, min(-sure[best] / bends[best], 1.0) if gains[best] > 0.0 else 0.0


def _numbers(value: Json) -> list[float]:
    assert isinstance(value, list)
    return [float(x) for x in value]


class Settings(Frozen):
    """
    Attributes:
        reach: how far a step ``newton`` may change the predictions.
    """

    reach: Annotated[float, Field(gt=0)] = 0.1


def make(settings: Settings, inputs: Inputs) -> Newton | None:
    """The rule, where the step is Gauss–Newton's."""
    return Newton(inputs.newton, settings.reach) if inputs.step == "newton" else None


def check(settings: Settings, choices: Choices) -> None:
    """The probes must be one-sided, around the point itself."""
    if choices.step == "newton" and choices.estimator != "one_sided":
        raise ConfigError(
            f"rule.step=newton: expected estimator.name=one_sided, whose first probe is the point itself, found "
            f"{choices.estimator}"
        )


registration = Registration(order=40, settings=Settings, make=make, steps=("newton",), check=check)


def example() -> Newton:
    """An instance for the contract tests."""
    return Newton(share=0.6, reach=0.1)
