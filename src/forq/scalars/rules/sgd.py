"""The plain step: against the estimated gradient, by the learning rate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from forq.scalars.chain import Inputs, NoSettings, Registration
from forq.scalars.directions import PerGroup, by_group, owner
from forq.scalars.protocols import Estimate, State


@dataclass(frozen=True, slots=True)
class SGD:
    """``x ← x − η·ĝ``: turns the estimate into the move that descends it.

    Args:
        lr: η in squared leaf units per loss, > 0; of all leaves or by group.

    Raises:
        ConfigError: lr is not a positive number.
    """

    lr: PerGroup

    def __post_init__(self) -> None:
        by_group(self.lr, "rule.lr")

    def init(self) -> State:
        return {}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        rates = by_group(self.lr, "rule.lr")
        terms = tuple(
            replace(term, weight=-rates[owner(term.group, rates)] * term.weight) for term in estimate.move.terms
        )
        return replace(estimate, move=replace(estimate.move, terms=terms)), state


def make(settings: NoSettings, inputs: Inputs) -> SGD | None:
    """The rule, where the step goes by slopes."""
    return SGD(inputs.rates) if inputs.step == "slope" else None


registration = Registration(order=40, settings=NoSettings, make=make, steps=("slope",))


def example() -> SGD:
    """An instance for the contract tests."""
    return SGD(lr=0.1)
