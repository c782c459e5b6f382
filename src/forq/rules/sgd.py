"""The plain step: against the estimated gradient, by the learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from forq.core import ConfigError, Estimate, State


@dataclass(frozen=True, slots=True)
class SGD:
    """``x ← x − η·ĝ``: turns the estimate into the move that descends it.

    Args:
        lr: η in squared leaf units per loss; > 0.

    Raises:
        ConfigError: lr is not a positive number.
    """

    lr: float

    def __post_init__(self) -> None:
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ConfigError(f"rule.lr must be a positive number, found {self.lr}")

    def init(self) -> State:
        return {}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        return replace(estimate, move=estimate.move.scaled(-self.lr)), state


def example() -> SGD:
    """An instance for the contract tests."""
    return SGD(lr=0.1)
