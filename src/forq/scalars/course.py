"""A run from its first training step to its last, and how a step shrinks along it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from forq.errors import ConfigError

SHAPES: Mapping[str, Callable[[float], float]] = {
    "none": lambda left: 1.0,
    "linear": lambda left: left,
    "late": lambda left: min(1.0, 2.0 * left),
}
"""How a step shrinks, by the share of the run that is left: ``late`` is full for the first half, then linear."""

SQUARES: Mapping[str, float] = {"none": 1.0, "linear": 1.0 / 3.0, "late": 2.0 / 3.0}
"""The mean over a run of the square of each shape, which is how far it walks at random."""


@dataclass(frozen=True, slots=True)
class Course:
    """A run from its first training step to its last.

    Attributes:
        first: number of the first training step (calibration comes before).
        steps: training steps of the run, ≥ 1.
        shape: how what it steers shrinks, one of :data:`SHAPES`.

    Raises:
        ConfigError: no such shape, or no steps.
    """

    first: int
    steps: int
    shape: str = "none"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ConfigError(f"rule.decay: expected one of {', '.join(SHAPES)}, found {self.shape!r}")
        if self.steps < 1:
            raise ConfigError(f"steps must be at least 1, found {self.steps}")

    def left(self, step: int) -> float:
        """The share of the run that is left before a step: from 1 down to 0."""
        return min(max(1.0 - (step - self.first) / self.steps, 0.0), 1.0)

    def share(self, step: int) -> float:
        """What is left of a step's size."""
        return SHAPES[self.shape](self.left(step))
