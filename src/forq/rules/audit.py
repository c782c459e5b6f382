"""The step that must pay: of all sides that were probed the best is taken, if it is better than staying."""

from __future__ import annotations

from dataclasses import dataclass, replace

from forq.core import Estimate, State


@dataclass(frozen=True, slots=True)
class Audit:
    """Keeps the one direction whose better side gains most on the step's own batch; none, where no side gains.

    One-cell steps that are forced oscillate once the gradient is below what a cell resolves; a step that is audited
    stays instead (RC-ZOQO). Many audits in a row that find nothing are a certificate, with which the engine ends the
    run. An estimate without gains (:mod:`forq.estimators.three_point` measures them) passes as it is.
    """

    def init(self) -> State:
        return {}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        if not estimate.gains:
            return estimate, state
        k = max(range(len(estimate.gains)), key=lambda one: estimate.gains[one])
        terms = (estimate.move.terms[k],) if estimate.gains[k] > 0.0 else ()
        return replace(estimate, move=replace(estimate.move, terms=terms)), state


def example() -> Audit:
    """An instance for the contract tests."""
    return Audit()
