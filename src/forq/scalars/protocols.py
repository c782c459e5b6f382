"""The types at the seams: what estimators, rules, calibrations and oracles exchange."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeAlias

from forq.scalars.losses import Losses
from forq.scalars.moves import Move
from forq.scalars.quadratic import Quadratic


@dataclass(frozen=True, slots=True)
class Estimate:
    """A gradient estimate: what an estimator makes of a step's losses, and what every rule returns.

    Attributes:
        move: Σ_k weight_k · z_k, an estimate of the gradient in leaf units (ascent direction).
        slopes: directional derivative d_k = z_k·∇L of every measured direction, in loss per leaf unit. Empty where no
            direction has finite losses.
        loss: the loss at the point itself, measured or averaged over the probes.
        bad: number of losses that were not finite; their directions are dropped.
        gains: how much the better side of each direction gains over staying, where the estimator measures it.
        quadratic: the loss along the directions up to second order, where the oracle measures curvature. Its places
            are those of the move's last terms.
        notes: numbers that a rule leaves for people, by name.
    """

    move: Move
    slopes: tuple[float, ...]
    loss: float
    bad: int = 0
    gains: tuple[float, ...] = ()
    quadratic: Quadratic | None = None
    notes: Mapping[str, float] = field(default_factory=dict)

    @property
    def stays(self) -> bool:
        """Whether the move goes nowhere."""
        return not any(term.weight for term in self.move.terms)


Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A value that JSON can hold."""

State: TypeAlias = Mapping[str, Json]
"""State of a rule between two steps: plain values, so that JSON can hold it."""


class Oracle(Protocol):
    """The one seam: answers the losses of a step's probes, in order."""

    def __call__(self, step: int, probes: Sequence[Move]) -> Sequence[Losses]: ...


class Estimator(Protocol):
    """Chooses the probes of a step and estimates the gradient from their losses. A pure function of the step.

    Attributes:
        needs_rows: whether ``tell`` needs the losses of every row, :attr:`forq.scalars.losses.Losses.each`.
        by_row: whether some of its probes are by row, :attr:`forq.scalars.moves.Move.by_row`.
        shared_form: name of the estimator that takes its place where all rows have to share their directions; None: it
            shares them already, or has no such form.
    """

    needs_rows: ClassVar[bool]
    by_row: ClassVar[bool]
    shared_form: ClassVar[str | None]

    @property
    def forwards(self) -> int:
        """Forward passes of a step."""
        ...

    def ask(self, step: int) -> tuple[Move, ...]: ...

    def tell(self, step: int, losses: Sequence[Losses]) -> Estimate: ...


class Rule(Protocol):
    """Maps an estimate to the next: clips it, normalises it, multiplies it by −η, … Rules chain; state is returned."""

    def init(self) -> State: ...

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]: ...


@dataclass(frozen=True, slots=True)
class Method:
    """An estimator and the rules that follow it.

    Attributes:
        notes: what the calibration measured and chose, by name, for people and the journal.
        patience: this many steps in a row that the rules decide not to take end the run in good order.
    """

    estimator: Estimator
    rules: tuple[Rule, ...]
    notes: Mapping[str, float] | None = None
    patience: int | None = None

    def init(self) -> tuple[State, ...]:
        """The rules' states before the first step."""
        return tuple(rule.init() for rule in self.rules)


Calibration: TypeAlias = Generator[tuple[Move, ...], Sequence[Losses], Method]
"""Yields the probes of a step, is sent their losses, returns the method."""

Plan: TypeAlias = Method | Callable[[], Calibration]
"""A method, or the calibration that measures what it leaves open."""
