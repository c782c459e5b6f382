"""Which random directions an estimator probes, and how far."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from forq.errors import ConfigError
from forq.scalars.course import Course
from forq.scalars.moves import OUTPUTS, Move, Term, direction_seed
from forq.scalars.protocols import Estimate

PerGroup = float | Mapping[str, float]
"""A number for all leaves, or a number for each group that is probed apart."""


def by_group(value: PerGroup, name: str) -> Mapping[str, float]:
    """The numbers by group; a single number is that of the group ``all``.

    Raises:
        ConfigError: ``name`` (what the numbers are) is not positive somewhere, or no group is there.
    """
    numbers = value if isinstance(value, Mapping) else {"all": value}
    for group, number in numbers.items():
        if not (number > 0 and math.isfinite(number)):
            where = "" if group == "all" else f" for {group}"
            raise ConfigError(f"{name} must be a positive number{where}, found {number}")
    if not numbers:
        raise ConfigError(f"{name} must be given for at least one group")
    return numbers


def owner(group: str, numbers: Mapping[str, float]) -> str:
    """The group whose numbers a direction takes: its own, but directions of outputs move scales and take theirs."""
    return group if group != OUTPUTS else "scales" if "scales" in numbers else "all"


def _same_law(law: str, share: float) -> str:
    return law


@dataclass(frozen=True, slots=True)
class Directions:
    """Which random directions an estimator probes, and how far; the estimators build on it.

    A direction touches one group of leaves. If one direction moved norms (few coordinates, steep slopes) and scales
    (many, flat), each would drown in the noise of the other; apart, each group has its own radius, slope and step. The
    directions of all steps go round the groups.

    Attributes:
        seed: the run's seed.
        eps: probe radius in leaf units, > 0, of all leaves or by group.
        directions: directions of one step, ≥ 1.
        noise: laws of z, symmetric about zero, for all leaves or by group; a group's directions take them in turn.
        course: the run; laws whose size can shrink do so with it, since a step of whole cells cannot.
        phases: whether each group is probed in its own part of the course; otherwise the groups take turns.
        step_noise: maps the law of a probe to the law of its step, drawn from the same seed, where they differ (QuZO).
        shrunk: the law at a share of its size, see :func:`forq.noise.law.shrunk`; by default no law shrinks.
        over_steps: whether a group that has whole steps to itself goes on with its laws where the step before stopped.
            Runs of decisions 1 (:class:`forq.recipes.settings.Settings`) began every step with the first law, so that
            one direction a step never drew another.

    Raises:
        ConfigError: a value is out of range.
    """

    needs_rows: ClassVar[bool] = False
    by_row: ClassVar[bool] = False
    shared_form: ClassVar[str | None] = None

    seed: int
    eps: PerGroup
    directions: int = 1
    noise: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ("rademacher",)
    course: Course | None = None
    phases: bool = False
    step_noise: Mapping[str, str] = field(default_factory=dict)
    shrunk: Callable[[str, float], str] = _same_law
    over_steps: bool = True

    def __post_init__(self) -> None:
        by_group(self.eps, "estimator.eps")
        if self.directions < 1:
            raise ConfigError(f"estimator.directions must be at least 1, found {self.directions}")
        if not self.noise:
            raise ConfigError("estimator.noise must name at least one law")
        if self.phases and self.course is None:
            raise ConfigError("phases need a course to be parts of")

    @property
    def turns(self) -> int:
        """Directions of a step that go round groups and laws."""
        return self.directions

    def probe(self, step: int, k: int, side: float = 1.0) -> Move:
        """The displacement ``side·ε·z`` along direction k of a step."""
        return Move((self._term(step, k, side * self.radius(step, k)),))

    def radius(self, step: int, k: int) -> float:
        """ε of direction k of a step."""
        return by_group(self.eps, "estimator.eps")[self._turn(step, k)[0]]

    @property
    def output_radius(self) -> float:
        """ε of directions of the outputs (:data:`forq.scalars.moves.OUTPUTS`), of which each row has its own."""
        eps = by_group(self.eps, "estimator.eps")
        return eps[owner(OUTPUTS, eps)]

    def estimate(self, step: int, slopes: Mapping[int, float], loss: float, bad: int) -> Estimate:
        """From the slopes of the directions that were measured, by k: the mean of d_k·z_k over those of each group."""
        groups = {k: self._turn(step, k)[0] for k in slopes}
        share = Counter(groups.values())
        terms = tuple(self._term(step, k, d / share[groups[k]]) for k, d in slopes.items())
        terms = tuple(replace(term, noise=self.step_noise.get(term.noise, term.noise)) for term in terms)
        return Estimate(Move(terms), tuple(slopes.values()), loss, bad)

    def _turn(self, step: int, k: int) -> tuple[str, str]:
        """Group and noise of direction k of a step."""
        groups, on = tuple(by_group(self.eps, "estimator.eps")), step * self.turns + k
        if self.phases and self.course is not None:
            done = 1.0 - self.course.left(step)
            group, turn = groups[min(int(done * len(groups)), len(groups) - 1)], on if self.over_steps else k
        else:
            every = k if len(groups) == 1 and not self.over_steps else on
            group, turn = groups[every % len(groups)], every // len(groups)
        laws = self.noise[group] if isinstance(self.noise, Mapping) else self.noise
        return group, self._shrunk(laws[turn % len(laws)], step)

    def _shrunk(self, law: str, step: int) -> str:
        if self.course is None:
            return law
        # Sixty-four sizes, not one a step: every law is made once and kept.
        return self.shrunk(law, max(math.ceil(64.0 * self.course.share(step)), 1) / 64.0)

    def _term(self, step: int, k: int, weight: float) -> Term:
        group, noise = self._turn(step, k)
        return Term(direction_seed(self.seed, step, k), weight, noise, group)
