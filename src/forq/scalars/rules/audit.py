"""Moves along the best of the measured directions only, and only if that lowers the loss of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from forq.errors import ConfigError
from forq.scalars.chain import Choices, Frozen, Inputs, Registration
from forq.scalars.protocols import Estimate, State


@dataclass(frozen=True, slots=True)
class Audit:
    """Keeps the direction whose better side gains most on the step's own batch; none, where no side gains.

    Forced steps of one cell oscillate once the gradient is below what a cell resolves; an audited step stays instead
    (RC-ZOQO). Many audits in a row that find no gain are a certificate, with which the engine ends the run. An
    estimate without gains (:mod:`forq.scalars.estimators.three_point` measures them) passes unchanged.

    Args:
        ties: where both sides of the best direction gain alike, the plus side is taken. Their slope is 0, which no vote
            follows; runs of decisions 1 stayed there, and counted that towards the certificate.
    """

    ties: bool = True

    def init(self) -> State:
        return {}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        if not estimate.gains:
            return estimate, state
        k = max(range(len(estimate.gains)), key=lambda place: estimate.gains[place])
        terms = (estimate.move.terms[k],) if estimate.gains[k] > 0.0 else ()
        if self.ties and terms and not terms[0].weight:
            terms = (replace(terms[0], weight=-1.0),)  # of a slope: the loss falls along +z. Votes read its sign alone
        return replace(estimate, move=replace(estimate.move, terms=terms)), state


class Settings(Frozen):
    """
    Attributes:
        audit: take a step only if its best side is better than staying, and end the run after this many steps in a row
            that were not taken; 0: every step is taken.
    """

    audit: Annotated[int, Field(ge=0)] = 0


def make(settings: Settings, inputs: Inputs) -> Audit | None:
    """The rule, where ``audit`` is not 0."""
    return Audit(ties=inputs.decisions > 1) if settings.audit else None


def check(settings: Settings, choices: Choices) -> None:
    """An audit needs the loss at the point itself, and steps that are as long as their probes."""
    if settings.audit and (choices.estimator != "three_point" or choices.step != "vote"):
        raise ConfigError(
            "rule.audit takes the side that was measured to be better than staying: expected estimator.name="
            f"three_point and rule.step=vote, found {choices.estimator} and {choices.step}; set them too"
        )


registration = Registration(
    order=20, settings=Settings, make=make, check=check, patience=lambda settings: settings.audit or None
)

LEAST = 20
"""Fewer audits than this have a mean from which nothing is concluded."""


def at_floor(gains: Sequence[float]) -> float | None:
    """Whether a run's own audits say that steps of this size cost more than the remaining slope gains.

    A gain is (|L₊ − L₋|) / 2, what the slope wins, less the bend (L₊ + L₋) / 2 − L₀, what the cell costs. Where its
    mean over the last tenth of a run (:data:`LEAST` steps at least) is not above zero, a cell is too coarse, and
    steps without an audit would lose.

    Args:
        gains: mean gain over the directions of every step, in order.

    Returns:
        The mean of the last, where it is not above zero; else ``None``.
    """
    last = gains[-max(LEAST, len(gains) // 10) :]
    mean = sum(last) / len(last) if len(last) >= LEAST else 1.0
    return mean if mean <= 0.0 else None


def example() -> Audit:
    """An instance for the contract tests."""
    return Audit()
