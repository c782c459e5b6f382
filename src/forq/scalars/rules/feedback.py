"""Error feedback: what rounding cut off a step is added to the next, recomputed from the seeds of the last steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from forq.errors import ConfigError
from forq.scalars.chain import Choices, Frozen, Inputs, Registration
from forq.scalars.moves import Link, Move, Term
from forq.scalars.protocols import Estimate, Json, State


@dataclass(frozen=True, slots=True)
class Feedback:
    """A step of a lattice with error feedback by seed replay (QES, arXiv 2602.03120).

    With u_t the step before rounding, v_t = u_t + γ·e_{t−1}; round(v_t) is applied, and the rest is e_t.
    The residual e would be a float for every coordinate; instead the move carries the seeds and weights of the last
    ``keep`` steps, and :mod:`forq.coordinates.space` computes e from zero, chunk by chunk. Coordinates that
    a bound held back count as moved: a residual must not press against the end of the range.

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
        past = _list(state["past"])
        link = Link("feedback", self.decay, past=tuple(tuple(map(_term, _list(terms))) for terms in past))
        now: Json = [[term.seed, term.weight, term.noise, term.group] for term in estimate.move.terms]
        return replace(estimate, move=Move(estimate.move.terms, link)), {"past": [*past, now][-self.keep :]}


def _list(value: Json) -> list[Json]:
    assert isinstance(value, list)
    return value


def _term(value: Json) -> Term:
    seed, weight, noise, group = _list(value)
    assert isinstance(seed, int) and isinstance(weight, int | float)
    return Term(seed, weight, str(noise), str(group))


class Settings(Frozen):
    """
    Attributes:
        feedback: number of earlier steps whose rounding errors are added to a step; 0: none.
        feedback_decay: factor γ by which the carried rounding fades from step to step.
    """

    feedback: Annotated[int, Field(ge=0, le=1024)] = 0
    feedback_decay: Annotated[float, Field(ge=0, le=1)] = 0.9


def make(settings: Settings, inputs: Inputs) -> Feedback | None:
    """The rule, where ``feedback`` is not 0."""
    return Feedback(settings.feedback, settings.feedback_decay) if settings.feedback else None


def check(settings: Settings, choices: Choices) -> None:
    """Only a step by slopes is rounded."""
    if settings.feedback and choices.step != "slope":
        raise ConfigError(
            "rule.feedback carries what rounding leaves of a step by slopes: expected rule.step=slope, found "
            f"{choices.step}"
        )


registration = Registration(order=60, settings=Settings, make=make, check=check)


def example() -> Feedback:
    """An instance for the contract tests."""
    return Feedback(keep=2, decay=0.9)
