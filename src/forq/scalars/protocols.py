"""What estimators, rules and oracles say to each other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from forq.scalars.moves import Move


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the losses of one step say about the gradient.

    Attributes:
        move: Σ_k weight_k · z_k, an estimate of the gradient in leaf units (ascent direction).
        slopes: the directional derivative of every direction measured, d_k = z_k·∇L; loss per leaf unit.
        loss: the loss at the point itself, measured or averaged over the probes.
        bad: losses that were not finite; their directions are dropped.
        gains: what the better side of every direction gains over staying, where it was measured.
    """

    move: Move
    slopes: tuple[float, ...]
    loss: float
    bad: int = 0
    gains: tuple[float, ...] = ()


State = Mapping[str, Any]
"""State of a rule between two steps: plain numbers and names, so that a snapshot can hold it as JSON."""


class Oracle(Protocol):
    """The one seam: answers the losses of a step's probes, in order. A loss may be NaN or infinite."""

    def __call__(self, step: int, probes: Sequence[Move]) -> Sequence[float]: ...


class Estimator(Protocol):
    """Which probes a step asks for, and what their losses say. Stateless: a pure function of the step."""

    def ask(self, step: int) -> tuple[Move, ...]: ...

    def tell(self, step: int, losses: Sequence[float]) -> Estimate: ...


class Rule(Protocol):
    """From an estimate to the next: clip, normalise, take −η of it, … Rules chain; state is returned."""

    def init(self) -> State: ...

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]: ...


@dataclass(frozen=True, slots=True)
class Method:
    """An estimator, the rules that follow it, and what a calibration found on the way (for the journal).

    Attributes:
        patience: so many steps in a row that the rules decide not to take end the run in good order.
    """

    estimator: Estimator
    rules: tuple[Rule, ...]
    found: Mapping[str, float] | None = None
    patience: int | None = None

    def init(self) -> tuple[State, ...]:
        """The rules' states before the first step."""
        return tuple(rule.init() for rule in self.rules)


Calibration = Generator[tuple[Move, ...], Sequence[float], Method]
"""Yields the probes of a step, is sent their losses, returns the method."""

Plan = Method | Callable[[], Calibration]
"""A method, or the calibration that finds it."""
