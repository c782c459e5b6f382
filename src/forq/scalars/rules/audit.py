"""The step that must pay: of all sides that were probed the best is taken, if it is better than staying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from forq.scalars.protocols import Estimate, State


@dataclass(frozen=True, slots=True)
class Audit:
    """Keeps the one direction whose better side gains most on the step's own batch; none, where no side gains.

    One-cell steps that are forced oscillate once the gradient is below what a cell resolves; a step that is audited
    stays instead (RC-ZOQO). Many audits in a row that find nothing are a certificate, with which the engine ends the
    run. An estimate without gains (:mod:`forq.scalars.estimators.three_point` measures them) passes as it is.
    """

    def init(self) -> State:
        return {}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        if not estimate.gains:
            return estimate, state
        k = max(range(len(estimate.gains)), key=lambda one: estimate.gains[one])
        terms = (estimate.move.terms[k],) if estimate.gains[k] > 0.0 else ()
        return replace(estimate, move=replace(estimate.move, terms=terms)), state


LEAST = 20
"""Audits below which nothing is concluded from their mean."""


def at_floor(gains: Sequence[float]) -> float | None:
    """Whether steps of this size are longer than the slope that is left can pay for, by a run's own audits.

    A gain is (|L₊ − L₋|) / 2, what the slope wins, less the bend (L₊ + L₋) / 2 − L₀, what the cell costs. Where it is
    not above zero on average of the last tenth of a run (:data:`LEAST` steps at the least), a cell is too coarse, and
    steps that are not audited would lose.

    Args:
        gains: mean gain of every step's directions, in order.

    Returns:
        The mean of the last, where it is not above zero; else ``None``.
    """
    last = gains[-max(LEAST, len(gains) // 10) :]
    mean = sum(last) / len(last) if len(last) >= LEAST else 1.0
    return mean if mean <= 0.0 else None


def example() -> Audit:
    """An instance for the contract tests."""
    return Audit()
