"""What rounding threw away is added to the next step, and is not stored but drawn again from the last steps' seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from forq.errors import ConfigError
from forq.scalars.moves import Link, Move, Term
from forq.scalars.protocols import Estimate, State


@dataclass(frozen=True, slots=True)
class Feedback:
    """A step of a lattice with error feedback by seed replay (QES, arXiv 2602.03120).

    Of the step wanted, u_t, with what is carried, v_t = u_t + γ·e_{t−1}, round(v_t) is taken and the rest is e_t.
    The residual e would be a float for every coordinate; instead the move carries the seeds and weights of the last
    ``keep`` steps, and :mod:`forq.coordinates.space` computes e from zero, chunk by chunk. Coordinates that a bound held back are
    taken to have moved: a residual must not press on against the end of the range.

    Args:
        keep: steps that are replayed, 1 … 1024; a step draws that many times more noise.
        decay: γ, 0 … 1.

    Raises:
        ConfigError: a value is out of range.
    """

    keep: int
    decay: float

    def __post_init__(self) -> None:
        if not (1 <= self.keep <= 1024 and 0.0 <= self.decay <= 1.0):
            raise ConfigError(
                f"rule.feedback: expected 1 … 1024 steps and a decay of 0 … 1, found {self.keep} and {self.decay}"
            )

    def init(self) -> State:
        return {"past": []}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        past: list[list[list[Any]]] = [*state["past"]]
        link = Link("feedback", self.decay, past=tuple(tuple(Term(*term) for term in terms) for terms in past))
        now = [[term.seed, term.weight, term.noise, term.group] for term in estimate.move.terms]
        return replace(estimate, move=Move(estimate.move.terms, link)), {"past": [*past, now][-self.keep :]}


def example() -> Feedback:
    """An instance for the contract tests."""
    return Feedback(keep=2, decay=0.9)
