"""The values every part of forq speaks in: seeded directions, moves, estimates, and the tree of errors.

A zeroth-order run decides nothing but scalars. A probe, a gradient estimate and an update are the same kind
of value, a sum of seeded directions; only :mod:`forq.spaces` ever turns one into numbers. This module imports
neither numpy nor torch.

    ForqError
    ├── ConfigError      a setting is impossible or unknown
    ├── DataError        a row, file or label cannot be used
    ├── FormatError      a checkpoint is broken, contradictory or of no known format
    ├── JournalError     a journal is torn, edited, of another base or of an unknown law
    └── RunError         a run cannot go on: it moves nothing, or its losses are not numbers
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

Kind = Literal["causal", "masked", "encoder", "diffusion"]
"""What a model is asked for: the next token, the token at a mask, hidden states alone, or which way noise lies."""


class ForqError(Exception):
    """Anything forq refuses; the message says what was expected, what was found, and what to do."""


class ConfigError(ForqError):
    """A setting is impossible or unknown."""


class DataError(ForqError):
    """A row, a file or a label cannot be used."""


class FormatError(ForqError):
    """A checkpoint is broken, contradicts itself, or is of no known format."""


class JournalError(ForqError):
    """A journal is torn, edited, of another base, or of an unknown law."""


class RunError(ForqError):
    """A run cannot go on: it moves nothing, or its losses are not numbers."""


_RUN_BITS, _STEP_BITS, _INDEX_BITS = 64, 40, 24


def direction_seed(run: int, step: int, index: int = 0) -> int:
    """Pack (run seed, step, direction index) into one 128-bit seed, without arithmetic that could collide.

    Args:
        run: the user's seed, 0 ≤ run < 2^64.
        step: 0 ≤ step < 2^40.
        index: which direction of the step, 0 ≤ index < 2^24.

    Raises:
        ConfigError: a field does not fit.

    Example:
        >>> direction_seed(1, 2, 3) == (1 << 64) + (2 << 24) + 3
        True
    """
    for name, value, bits in (
        ("seed", run, _RUN_BITS),
        ("step", step, _STEP_BITS),
        ("index", index, _INDEX_BITS),
    ):
        if not 0 <= value < 1 << bits:
            raise ConfigError(f"{name} must lie in 0 … 2^{bits} − 1, found {value}")
    return run << (_STEP_BITS + _INDEX_BITS) | step << _INDEX_BITS | index


@dataclass(frozen=True, slots=True)
class Term:
    """One seeded direction: ``weight · z(seed)``, with z drawn by the law named ``noise``.

    Attributes:
        seed: names the direction; see :func:`direction_seed`.
        weight: scalar factor, in leaf units (multiples of a leaf's ``unit``).
        noise: law of z: ``rademacher``, ``gaussian``, ``uniform_grid:3``, ``sign:uniform_grid:3``, …
        group: the leaves it touches: ``all``, or the name of one group.
    """

    seed: int
    weight: float
    noise: str = "rademacher"
    group: str = "all"


@dataclass(frozen=True, slots=True)
class Link:
    """What happens to the sum of the terms, elementwise, before it is added.

    ``identity``: s. ``sign``: size · sgn(s), the step of ZO-SignSGD. ``stochastic``: s rounded to a whole
    number of cells, up with probability equal to the fraction, drawn from ``seed`` (QuZO). ``feedback``: s plus size
    times what rounding left of the moves before, ``past``, to nearest (QES); of a lattice only.
    """

    kind: Literal["identity", "sign", "stochastic", "feedback"] = "identity"
    size: float = 1.0
    seed: int = 0
    past: tuple[tuple[Term, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """``x ← x + unit · link(Σ_k weight_k · z_k)``: a probe, a gradient estimate or an update.

    A move without terms is the point itself.
    """

    terms: tuple[Term, ...] = ()
    link: Link = field(default_factory=Link)

    def scaled(self, factor: float) -> Move:
        """The same directions, ``factor`` times as far."""
        if self.link.kind == "sign":  # which no weight makes longer
            return replace(self, link=replace(self.link, size=self.link.size * factor))
        return replace(self, terms=tuple(replace(term, weight=term.weight * factor) for term in self.terms))


HERE = Move()


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did.

    Attributes:
        changed, total: coordinates that changed, and coordinates in all.
        cut: those a bound held back.
        lost: those that should have moved by part of a cell of a lattice, or of the last place of a master that is not
            float32, and were rounded to stay.
    """

    changed: int = 0
    cut: int = 0
    total: int = 0
    lost: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(
            self.changed + other.changed, self.cut + other.cut, self.total + other.total, self.lost + other.lost
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the losses of one step say about the gradient.

    Attributes:
        move: Σ_k weight_k · z_k, an estimate of the gradient in leaf units (ascent direction).
        slopes: the directional derivative of every direction measured, d_k = z_k·∇L; loss per leaf unit.
        loss: the loss at the point itself, measured or averaged over the probes.
        bad: losses that were not finite; their directions are dropped.
        gains: what the better side of every direction gains over staying, where it was measured.
    """

    move: Move
    slopes: tuple[float, ...]
    loss: float
    bad: int = 0
    gains: tuple[float, ...] = ()


SHAPES: Mapping[str, Callable[[float], float]] = {
    "none": lambda left: 1.0,
    "linear": lambda left: left,
    "late": lambda left: min(1.0, 2.0 * left),
}
"""How a step shrinks, by the share of the run that is left: ``late`` is full for the first half, then linear."""

SQUARES: Mapping[str, float] = {"none": 1.0, "linear": 1.0 / 3.0, "late": 2.0 / 3.0}
"""The mean over a run of the square of each shape, which is how far it walks at random."""


@dataclass(frozen=True, slots=True)
class Course:
    """A run from its first training step to its last.

    Attributes:
        first: number of the first training step (calibration comes before).
        steps: training steps of the run, ≥ 1.
        shape: how what it steers shrinks, one of :data:`SHAPES`.

    Raises:
        ConfigError: no such shape, or no steps.
    """

    first: int
    steps: int
    shape: str = "none"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ConfigError(f"rule.decay: expected one of {', '.join(SHAPES)}, found {self.shape!r}")
        if self.steps < 1:
            raise ConfigError(f"steps must be at least 1, found {self.steps}")

    def left(self, step: int) -> float:
        """The share of the run that is left before a step: from 1 down to 0."""
        return min(max(1.0 - (step - self.first) / self.steps, 0.0), 1.0)

    def share(self, step: int) -> float:
        """What is left of a step's size."""
        return SHAPES[self.shape](self.left(step))


PerGroup = float | Mapping[str, float]
"""One number for all leaves, or one for each group that is probed on its own."""


def by_group(value: PerGroup, name: str) -> Mapping[str, float]:
    """The numbers by group; one number is that of the group ``all``.

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


@dataclass(frozen=True, slots=True)
class Directions:
    """Which random directions an estimator probes, and how far; the estimators build on it.

    A direction touches one group of leaves. Few coordinates with steep slopes (norms) would drown in the noise of
    many flat ones (scales) if one direction moved both, and the other way round; apart, each has its own radius,
    slope and step. The directions of all steps go round the groups.

    Attributes:
        seed: the run's seed.
        eps: probe radius in leaf units, > 0, of all leaves or by group.
        directions: directions of one step, ≥ 1.
        noise: laws of z, symmetric about zero, for all leaves or by group; a group's directions take them in turn.
        course: the run; the radius of a law ``cells:ρ`` shrinks with it, as no step of a lattice can.
        phases: the groups come one after the other in equal parts of the course, not in turn.
        step_noise: from the law of a probe to that of its step, where it is another, of the same seed (QuZO).

    Raises:
        ConfigError: a value is out of range.
    """

    seed: int
    eps: PerGroup
    directions: int = 1
    noise: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ("rademacher",)
    course: Course | None = None
    phases: bool = False
    step_noise: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        by_group(self.eps, "estimator.eps")
        if self.directions < 1:
            raise ConfigError(f"estimator.directions must be at least 1, found {self.directions}")
        if not self.noise:
            raise ConfigError("estimator.noise must name at least one law")
        if self.phases and self.course is None:
            raise ConfigError("phases need a course to be parts of")

    def probe(self, step: int, k: int, side: float = 1.0) -> Move:
        """The displacement ``side·ε·z`` along direction k of a step."""
        return Move((self._term(step, k, side * self.radius(step, k)),))

    def radius(self, step: int, k: int) -> float:
        """ε of direction k of a step."""
        return by_group(self.eps, "estimator.eps")[self._turn(step, k)[0]]

    def estimate(self, step: int, slopes: Mapping[int, float], loss: float, bad: int) -> Estimate:
        """From the slopes of the directions that were measured, by k: the mean of d_k·z_k over those of each group."""
        groups = {k: self._turn(step, k)[0] for k in slopes}
        share = Counter(groups.values())
        terms = tuple(self._term(step, k, d / share[groups[k]]) for k, d in slopes.items())
        terms = tuple(replace(term, noise=self.step_noise.get(term.noise, term.noise)) for term in terms)
        return Estimate(Move(terms), tuple(slopes.values()), loss, bad)

    def _turn(self, step: int, k: int) -> tuple[str, str]:
        """Group and noise of direction k of a step."""
        groups = tuple(by_group(self.eps, "estimator.eps"))
        if self.phases and self.course is not None:
            done = 1.0 - self.course.left(step)
            group, turn = groups[min(int(done * len(groups)), len(groups) - 1)], k
        else:
            every = k if len(groups) == 1 else step * self.directions + k
            group, turn = groups[every % len(groups)], every // len(groups)
        laws = self.noise[group] if isinstance(self.noise, Mapping) else self.noise
        return group, self._shrunk(laws[turn % len(laws)], step)

    def _shrunk(self, law: str, step: int) -> str:
        head, _, radius = law.partition(":")
        if head != "cells" or self.course is None:
            return law
        # Sixty-four sizes, not one a step: every law is made once and kept.
        share = max(math.ceil(64.0 * self.course.share(step)), 1) / 64.0
        return f"cells:{max(float(radius) * share, 2.0**-10):.4g}"

    def _term(self, step: int, k: int, weight: float) -> Term:
        group, noise = self._turn(step, k)
        return Term(direction_seed(self.seed, step, k), weight, noise, group)


State = Mapping[str, Any]
"""State of a rule between two steps: plain numbers and names, so that a snapshot can hold it as JSON."""


class Oracle(Protocol):
    """The one seam: answers the losses of a step's probes, in order. A loss may be NaN or infinite."""

    def __call__(self, step: int, probes: Sequence[Move]) -> Sequence[float]: ...


class Estimator(Protocol):
    """Which probes a step asks for, and what their losses say. Stateless: a pure function of the step."""

    def ask(self, step: int) -> tuple[Move, ...]: ...

    def tell(self, step: int, losses: Sequence[float]) -> Estimate: ...


class Rule(Protocol):
    """From an estimate to the next: clip, normalise, take −η of it, … Rules chain; state is returned."""

    def init(self) -> State: ...

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]: ...


@dataclass(frozen=True, slots=True)
class Method:
    """An estimator, the rules that follow it, and what a calibration found on the way (for the journal).

    Attributes:
        patience: so many steps in a row that the rules decide not to take end the run in good order.
    """

    estimator: Estimator
    rules: tuple[Rule, ...]
    found: Mapping[str, float] | None = None
    patience: int | None = None

    def init(self) -> tuple[State, ...]:
        """The rules' states before the first step."""
        return tuple(rule.init() for rule in self.rules)
