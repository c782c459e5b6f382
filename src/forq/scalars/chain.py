"""The chain of rules that a method's settings make, from what each file of :mod:`forq.scalars.rules` registers.

A file registers its own settings, its place in the chain, when the rule is active, and which other settings it needs.
Nothing else names a rule: :class:`forq.recipes.settings.RuleSettings` is built from the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from forq.plugins import registry
from forq.scalars.course import Course
from forq.scalars.protocols import Rule


class Frozen(BaseModel):
    """Settings: unknown keys are errors, and values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoSettings(Frozen):
    """The settings of a rule that has none of its own."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The other settings of a method that a rule may depend on."""

    estimator: str
    directions: int
    step: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """What rules are made from, beside their own settings.

    Attributes:
        step: which rule turns the estimate into a step, ``rule.step``.
        groups: the groups that are probed apart, in order.
        clips: bound of a slope, of the groups that have one.
        rates: learning rate, of the groups that have one; a step by vote without it is ±z, as a probe of ε = 1.
        course: the run, and how its steps shrink.
        newton: share of the best length of a step, ``rule.newton``.
        whole_cells: all directions are of whole cells. Their law shrinks: a step of them has no length.
        decisions: the law of what a step decides, :attr:`forq.recipes.settings.Settings.decisions`.
    """

    step: str
    groups: tuple[str, ...]
    clips: Mapping[str, float]
    rates: Mapping[str, float]
    course: Course
    newton: float
    whole_cells: bool
    decisions: int = 3


Own = TypeVar("Own", bound=Frozen)


def own(settings: Frozen, kind: type[Own]) -> Own:
    """A method's rule settings as those of one file, whose fields they inherit."""
    if not isinstance(settings, kind):
        raise TypeError(f"expected settings that inherit {kind.__module__}.{kind.__name__}, found {type(settings)}")
    return settings


@dataclass(frozen=True, slots=True)
class Registration(Generic[Own]):
    """A rule's file as the others see it; ``registration`` in the file.

    Attributes:
        order: place in the chain: below 40 rules read slopes, at 40 one rule turns the estimate into a step, above 40
            rules change the step.
        settings: its own settings. Their defaults leave the rule out.
        make: the rule, or ``None`` where the settings leave it out.
        steps: the values of ``rule.step`` that choose it.
        check: raises ConfigError where its settings contradict the method's other choices.
        patience: this many steps in a row that are not taken end the run; ``None``: no number does.
        standardises: whether it puts slopes in standard units, so that their size says nothing about the learning rate.
    """

    order: int
    settings: type[Own]
    make: Callable[[Own, Inputs], Rule | None]
    steps: tuple[str, ...] = ()
    check: Callable[[Own, Choices], None] = lambda settings, choices: None
    patience: Callable[[Own], int | None] = lambda settings: None
    standardises: Callable[[Own], bool] = lambda settings: False

    def made(self, settings: Frozen, inputs: Inputs) -> Rule | None:
        """The rule under all rule settings of a method."""
        return self.make(own(settings, self.settings), inputs)

    def require(self, settings: Frozen, choices: Choices) -> None:
        """Refuse settings of the rule that contradict the method's other choices.

        Raises:
            ConfigError: they do.
        """
        self.check(own(settings, self.settings), choices)

    def limit(self, settings: Frozen) -> int | None:
        """The rule's patience under all rule settings of a method."""
        return self.patience(own(settings, self.settings))

    def unitless(self, settings: Frozen) -> bool:
        """Whether the rule standardises slopes under all rule settings of a method."""
        return self.standardises(own(settings, self.settings))


@cache
def registered() -> tuple[Registration[Frozen], ...]:
    """The registrations of all rules, in the order of the chain."""
    files: list[Registration[Frozen]] = [registry.get("rules", name).registration for name in registry.names("rules")]
    return tuple(sorted(files, key=lambda registration: registration.order))


def rules(settings: Frozen, inputs: Inputs) -> tuple[Rule, ...]:
    """The chain that a method's rule settings make."""
    made = (registration.made(settings, inputs) for registration in registered())
    return tuple(rule for rule in made if rule is not None)


def patience(settings: Frozen) -> int | None:
    """The least patience of all rules."""
    limits = (registration.limit(settings) for registration in registered())
    return min((limit for limit in limits if limit is not None), default=None)


def standardises(settings: Frozen) -> bool:
    """Whether some rule puts slopes in standard units."""
    return any(registration.unitless(settings) for registration in registered())
