"""A step of fixed length: each coordinate moves against the sign of its estimated gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from forq.errors import ConfigError
from forq.scalars.chain import Inputs, NoSettings, Registration
from forq.scalars.moves import Link, Move
from forq.scalars.protocols import Estimate, State


@dataclass(frozen=True, slots=True)
class SignStep:
    """``x ← x − size·sgn(ĝ)``, elementwise (ZO-SignSGD, Liu et al. 2019, algorithm 1).

    With ``vote`` each direction counts as the sign of its loss difference, ``ĝ = Σ sgn(d_k)·z_k`` (ZOQO,
    arXiv 2501.06736): a comparison of two losses is all that is used, and on a lattice nothing of the step is a
    floating-point number.

    Args:
        size: length of the step in leaf units, > 0, of all leaves; with ``vote`` whole cells, max(⌊size⌋, 1). ``None``,
            with ``vote``: ``x ← x − Σ sgn(d_k)·z_k``, so that each direction goes as far as a probe of ε = 1, whatever
            ε was probed with. On a lattice z counts whole cells.
        vote: use the signs of the slopes alone.

    Raises:
        ConfigError: size is not a positive number, or left out of a step that is no vote.
    """

    size: float | None
    vote: bool = False

    def __post_init__(self) -> None:
        if self.size is None:
            if not self.vote:
                raise ConfigError("rule.lr: a step of the slopes' signs needs a length")
        elif not (self.size > 0 and math.isfinite(self.size)):
            raise ConfigError(f"rule.lr must be a positive number, found {self.size}")

    def init(self) -> State:
        return {}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        terms = tuple(replace(term, weight=self._weight(-term.weight)) for term in estimate.move.terms)
        if self.size is None:
            return replace(estimate, move=Move(terms)), state
        size = float(max(math.floor(self.size), 1)) if self.vote else self.size
        return replace(estimate, move=Move(terms, Link("sign", size))), state

    def _weight(self, slope: float) -> float:
        # A direction whose losses agree has no vote.
        return math.copysign(1.0, slope) if self.vote and slope else slope


def make(settings: NoSettings, inputs: Inputs) -> SignStep | None:
    """The rule, where the step goes by signs.

    All groups have one learning rate (:meth:`forq.recipes.settings.Settings.require_followed`); in runs of decisions 1
    that of the first group was the length for all.
    """
    if inputs.step not in registration.steps:
        return None
    return SignStep(inputs.rates.get(inputs.groups[0]), vote=inputs.step == "vote")


registration = Registration(order=40, settings=NoSettings, make=make, steps=("sign", "vote"))


def example() -> SignStep:
    """An instance for the contract tests."""
    return SignStep(size=0.1)
