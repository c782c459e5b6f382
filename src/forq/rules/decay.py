"""A step that shrinks as the run ends: constant steps walk at random once the gradient is below its noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from forq.core import ConfigError, Estimate, State

SHAPES: Mapping[str, Callable[[float], float]] = {
    "none": lambda left: 1.0,
    "linear": lambda left: left,
    "late": lambda left: min(1.0, 2.0 * left),
}
"""Factor by the share of the run that is left: ``late`` is full for the first half, then linear."""


@dataclass(frozen=True, slots=True)
class Decay:
    """``ĝ ← s(t)·ĝ`` with s falling from 1 to 0 over the run.

    Args:
        shape: one of :data:`SHAPES`.
        first: number of the first training step (calibration comes before).
        steps: training steps of the run.

    Raises:
        ConfigError: no such shape, or no steps.
    """

    shape: str
    first: int
    steps: int

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ConfigError(f"rule.decay: expected one of {', '.join(SHAPES)}, found {self.shape!r}")
        if self.steps < 1:
            raise ConfigError(f"steps must be at least 1, found {self.steps}")

    def init(self) -> State:
        return {}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        left = 1.0 - (step - self.first) / self.steps
        return replace(estimate, move=estimate.move.scaled(SHAPES[self.shape](max(left, 0.0)))), state


def example() -> Decay:
    """An instance for the contract tests."""
    return Decay("linear", first=0, steps=4)
