"""Recipes: a method of a paper, or ours, as a named set of settings. One recipe, one file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from forq import registry
from forq.calibrations import Found, Wanted, calibrate
from forq.core import ConfigError, Course, Method, Rule
from forq.engine import Plan
from forq.leaves import DOMAINS, INTEGERS, Domain, Leaf, Unit, usual_unit
from forq.noise import law
from forq.rules.audit import Audit
from forq.rules.clip import Clip
from forq.rules.decay import Decay
from forq.rules.feedback import Feedback
from forq.rules.sgd import SGD
from forq.rules.shape import Shape
from forq.rules.sign_step import SignStep

if TYPE_CHECKING:
    from torch import Tensor

AUTO = ":auto"
"""End of a law of whole numbers whose size is left to the calibration."""

CELLS = ("cells:auto",)
"""Noise of integers, its radius left to the calibration."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Frozen(BaseModel):
    """A setting group: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def one_or_more(value: object) -> object:
    """One name as a tuple of one."""
    return (value,) if isinstance(value, str) else value


class EstimatorSettings(Frozen):
    """What a step probes.

    Attributes:
        noise: laws of z; ``cells:auto`` is calibrated, for steps by vote.
        step_noise: laws of a step's directions, one for each of ``noise``, by default those of its probes. A kind with
            a noise of its own steps as it probes.
        phases: several kinds move one after the other, each for its part of the run, not in turn.
    """

    name: str
    eps: Positive | Literal["auto"]
    directions: Annotated[int, Field(ge=1, le=1 << 20)] = 1
    noise: tuple[str, ...] = ("rademacher",)
    phases: bool = False
    step_noise: tuple[str, ...] = ()

    _one_or_more = field_validator("noise", "step_noise", mode="before")(one_or_more)

    @model_validator(mode="after")
    def _one_for_each(self) -> EstimatorSettings:
        if self.step_noise and len(self.step_noise) != len(self.noise):
            raise ConfigError(
                f"estimator.step_noise: expected one law for each of the {len(self.noise)} of estimator.noise, found "
                f"{len(self.step_noise)}; set both"
            )
        return self

    @property
    def steps_by(self) -> dict[str, str]:
        """From the law of a probe to that of its step."""
        return dict(zip(self.noise, self.step_noise, strict=False))


class RuleSettings(Frozen):
    """What is done with the estimate. Defaults change nothing, so a recipe names what it uses.

    Attributes:
        lr: η; ``auto`` is ``newton`` · N / tr(H) with the trace measured by the calibration.
        clip: bound of each directional derivative.
        decay: how the step shrinks over the run, see :mod:`forq.rules.decay`.
        step: ``slope``: −η·ĝ. ``sign``: −η·sgn(ĝ), elementwise. ``vote``: the same with every slope's sign in place
            of it; η counts cells there, and ``auto`` goes as far as the probe.
        shape: slopes of a population in standard units (:mod:`forq.rules.shape`); ``auto`` takes their sum.
        audit: take the best side only if it is better than staying, and end the run after so many in a row that were
            not, :mod:`forq.rules.audit`; 0: every step is taken.
        feedback, feedback_decay: steps whose rounding is carried along, and how it fades, :mod:`forq.rules.feedback`.
        edge: integers at the end of their range: ``cut`` a probe there, or ``skip`` them.
        newton: share of the greediest stable step that ``auto`` dares.
    """

    lr: Positive | Literal["auto"]
    clip: Positive | Literal["auto", "off"] = "off"
    decay: Literal["none", "linear", "late"] = "none"
    step: Literal["slope", "sign", "vote"] = "slope"
    shape: Literal["off", "zscore", "rank"] = "off"
    audit: Annotated[int, Field(ge=0)] = 0
    feedback: Annotated[int, Field(ge=0, le=1024)] = 0
    feedback_decay: Annotated[float, Field(ge=0, le=1)] = 0.9
    edge: Literal["cut", "skip"] = "cut"
    newton: Annotated[float, Field(gt=0, le=1)] = 0.5


class GroupSettings(Frozen):
    """What one kind of leaves has of its own; ``None`` is as the recipe says.

    Attributes:
        unit: by default as :func:`forq.leaves.usual_unit` says. Zero points and codes are integers: their ``eps`` is
            one cell and their ``noise`` moves a fiftieth of them at a time, unless set otherwise.
    """

    eps: Positive | Literal["auto"] | None = None
    lr: Positive | Literal["auto"] | None = None
    clip: Positive | Literal["auto", "off"] | None = None
    newton: Annotated[float, Field(gt=0, le=1)] | None = None
    noise: tuple[str, ...] | None = None
    unit: Unit | None = None

    _one_or_more = field_validator("noise", mode="before")(one_or_more)


class LoraSettings(Frozen):
    """The adapters of ``--move lora``, see :func:`forq.models.adapters.add_lora`.

    Attributes:
        bits: of their grid; ``None`` is float32.
        alone: the scales of layers that carry an adapter do not move (QZO + LoRA).
    """

    rank: Annotated[int, Field(ge=1, le=1 << 16)] = 8
    alpha: Positive = 16.0
    targets: tuple[str, ...] = ("all-linear",)
    bits: Annotated[int, Field(ge=2, le=8)] | None = None
    alone: bool = False

    @field_validator("targets", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class Settings(Frozen):
    """All that tells one recipe from another.

    Attributes:
        move: the kinds of leaves that move (:data:`forq.leaves.GROUPS`), with commas between, or ``all-float``.
            Several are probed apart, each with its own ε, η and C.
        unit: what eps and lr are measured in: ``relative`` to each coordinate's start, ``absolute`` with
            bounds that keep signs, ``free`` without bounds, ``spread``: the tensor's root mean square.
        groups: what a kind has of its own.
        lora: the adapters, where they move.
    """

    move: str
    unit: Unit
    estimator: EstimatorSettings
    rule: RuleSettings
    groups: Mapping[str, GroupSettings] = Field(default_factory=dict)
    lora: LoraSettings = Field(default_factory=LoraSettings)

    @model_validator(mode="after")
    def _groups_move(self) -> Settings:
        for name in self.groups:
            if name not in self.kinds:
                raise ConfigError(f"{name}: expected settings of a kind that moves ({self.move}); add it to --move")
        return self

    @model_validator(mode="after")
    def _rules_fit(self) -> Settings:
        probe, rule = self.estimator, self.rule
        if rule.audit and (probe.name != "three_point" or rule.step != "vote"):
            raise ConfigError(
                "rule.audit takes the side that was measured to be better than staying: expected estimator.name="
                f"three_point and rule.step=vote, found {probe.name} and {rule.step}; set them too"
            )
        if rule.feedback and rule.step != "slope":
            raise ConfigError(
                f"rule.feedback carries what rounding leaves of a step by slopes: expected rule.step=slope, found "
                f"{rule.step}"
            )
        if rule.shape != "off" and probe.directions < 2:
            raise ConfigError(
                f"rule.shape compares the directions of a step: expected estimator.directions of 2 or more, found "
                f"{probe.directions}"
            )
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that move."""
        return tuple(kind.strip() for kind in self.move.split(","))

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is probed apart, every number in its place."""
        return tuple(self._part(kind, "all" if len(self.kinds) == 1 else kind) for kind in self.kinds)

    @property
    def portable(self) -> bool:
        """Whether every machine draws the same noise."""
        probes = {noise for part in self.parts for noise in part.noise}
        steps = {step for probe, step in self.estimator.steps_by.items() if probe in probes}
        return all(law(sized(noise, 0.5)).portable for noise in probes | steps)

    def domain(self, leaf: Leaf, x: Tensor) -> Domain:
        """Where the coordinates of a leaf may go; see :class:`forq.spaces.Space`."""
        found = DOMAINS[self._part(self.kinds[0] if len(self.kinds) == 1 else leaf.group, "").unit](leaf, x)
        return replace(found, skip_edge=True) if self.rule.edge == "skip" and found.lattice else found

    def _part(self, kind: str, name: str) -> Part:
        own, probe, rule = self.groups.get(kind, GroupSettings()), self.estimator, self.rule
        # A recipe of the lattice says itself how far and how many; under another, integers move few at a time.
        whole = kind in INTEGERS or (kind == "lora" and self.lora.bits is not None)
        coarse = whole and self.unit != "cells"
        cell, sparse = (1.0, ("sparse:0.02",)) if coarse else (probe.eps, probe.noise)
        return Part(
            name,
            cell if own.eps is None else own.eps,
            rule.lr if own.lr is None else own.lr,
            rule.clip if own.clip is None else own.clip,
            rule.newton if own.newton is None else own.newton,
            sparse if own.noise is None else own.noise,
            usual_unit(kind, self.unit, whole=whole) if own.unit is None else own.unit,
            rule.step == "vote",
            rule.shape != "off",
            float(probe.directions),
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A group that is probed apart (``all`` where nothing is), with the settings that hold for it."""

    name: str
    eps: float | Literal["auto"]
    lr: float | Literal["auto"]
    clip: float | Literal["auto", "off"]
    newton: float
    noise: tuple[str, ...]
    unit: Unit
    voted: bool
    shaped: bool
    directions: float

    @property
    def sized(self) -> bool:
        """Whether how far integers move is left to the calibration."""
        return any(law.endswith(AUTO) for law in self.noise)

    @property
    def open(self) -> bool:
        """Whether something is left to a calibration."""
        return self.sized or ("auto" in (self.eps, self.lr, self.clip) and not self.voted)

    def settled(self, found: Found | None) -> Numbers:
        """With what was found where something was left open."""

        def number(name: str, value: float | str) -> float:
            return float(getattr(found, name)) if isinstance(value, str) else value

        if self.voted or self.sized:
            return self._cells(found)
        bound = None if self.clip == "off" else number("clip", self.clip)
        return Numbers(number("eps", self.eps), number("lr", self.lr), bound, self.noise)

    def _cells(self, found: Found | None) -> Numbers:
        eps = 1.0 if self.eps == "auto" else self.eps
        if found is None:
            return Numbers(eps, None if self.lr == "auto" else self.lr, None, self.noise)
        radius = found.notes["radius"]
        if self.lr != "auto":
            rate: float | None = self.lr
        elif self.voted:
            rate = None
        else:
            # In standard units each direction of a population goes as far as one alone would; else on average one cell.
            rate = self.directions if self.shaped else 1.0 / (found.notes["slope"] * radius)
        return Numbers(eps, rate, None, tuple(sized(law, radius) for law in self.noise))


@dataclass(frozen=True, slots=True)
class Numbers:
    """ε, η and C of a group, and its laws of z; no η: a voted step goes as far as its probe."""

    eps: float
    lr: float | None
    clip: float | None
    noise: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A preset, and where it comes from."""

    summary: str
    source: str
    settings: Settings


Model = TypeVar("Model", bound=BaseModel)


def checked(kind: type[Model], tree: Mapping[str, Any]) -> Model:
    """Plain values as settings.

    Raises:
        ConfigError: a key is unknown or a value cannot be; all that is wrong is listed.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        said = {_where(problem): _say(problem) for problem in reversed(error.errors())}  # one complaint for a key
        raise ConfigError("; ".join(reversed(said.values()))) from error


def settings(tree: Mapping[str, Any]) -> Settings:
    """A method's settings from plain values, as a journal's header holds them.

    Raises:
        ConfigError: see :func:`checked`.
    """
    return checked(Settings, tree)


def recipe(name: str) -> Recipe:
    """The recipe of that name (dashes and underscores are alike).

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    found: Recipe = registry.get("recipes", name).recipe
    return found


def plan(chosen: Settings, *, seed: int, steps: int, room: Mapping[str, float] | None = None) -> Plan:
    """The method the settings mean, or the calibration that finds what they leave ``auto``.

    Args:
        room: half of the cells integers have, by group, as :attr:`forq.spaces.Space.room` says.
    """
    probe, rule, parts = chosen.estimator, chosen.rule, chosen.parts
    make = partial(registry.get("estimators", probe.name).make, seed=seed, directions=probe.directions)

    def finish(found: Mapping[str, Found], first: int) -> Method:
        settled = {part.name: part.settled(found.get(part.name)) for part in parts}
        course = Course(first, steps, rule.decay)
        clips = {name: one.clip for name, one in settled.items() if one.clip is not None}
        rules: list[Rule] = [Clip(clips)] if clips else []
        rules += [Audit()] if rule.audit else []
        rules += [] if rule.shape == "off" else [Shape(rule.shape)]
        rates = {name: one.lr for name, one in settled.items() if one.lr is not None}
        if rule.step == "slope":
            rules.append(SGD(rates))
        else:
            rules.append(SignStep(rates.get(parts[0].name), rule.step == "vote"))
        # Of whole cells what shrinks is how many coordinates they move, see Directions.
        whole = all(law.startswith("cells:") for one in settled.values() for law in one.noise)
        rules += [Decay(course)] if rule.decay != "none" and rule.step != "vote" and not whole else []
        rules += [Feedback(rule.feedback, rule.feedback_decay)] if rule.feedback else []
        eps, noise = ({name: getattr(one, what) for name, one in settled.items()} for what in ("eps", "noise"))
        radii = [one.notes["radius"] for one in found.values() if "radius" in one.notes]
        steps_by = {sized(law, r): sized(step, r) for law, step in probe.steps_by.items() for r in radii or [1.0]}
        estimator = make(eps=eps, noise=noise, course=course, phases=probe.phases, step_noise=steps_by)
        return Method(estimator, tuple(rules), _notes(found), rule.audit or None)

    wanted = []
    for part in parts:
        if part.open:
            if part.eps == "auto" and not part.voted and part.unit not in ("relative", "spread"):
                raise ConfigError(f"estimator.eps: 'auto' tries relative radii, with unit {part.unit!r} give a number")
            share = probe.directions if probe.phases else max(1, probe.directions // len(parts))
            eps = None if part.eps == "auto" else part.eps
            wanted.append(Wanted(part.name, part.noise, share, part.newton, eps, part.sized, _room(part, room or {})))
    if not wanted:
        return finish({}, 0)
    forwards = steps * make(eps=1.0).forwards
    return lambda: calibrate(seed=seed, groups=wanted, forwards=forwards, steps=steps, finish=finish)


def _room(part: Part, room: Mapping[str, float]) -> float:
    return min(room.values(), default=math.inf) if part.name == "all" else room.get(part.name, math.inf)


def sized(law: str, radius: float) -> str:
    """A law of whole numbers of this root mean square, where its size was left open."""
    if not law.endswith(AUTO):
        return law
    head = law.removesuffix(AUTO)
    # A Gaussian much smaller than a cell would be rounded to other coordinates by the probe than by the step.
    return f"{head}:{radius:.4g}" if law.startswith("cells") or radius > 1.0 else f"{head}:1:{radius**2:.4g}"


def _notes(found: Mapping[str, Found]) -> Mapping[str, float] | None:
    """What was found, for the journal: by its name, and the group's where there are several."""
    return {
        name if group == "all" else f"{group}.{name}": value
        for group, one in found.items()
        for name, value in one.notes.items()
    } or None


def _say(problem: Any) -> str:
    return f"{_where(problem)}: {problem['msg'].lower()}, found {problem.get('input')!r}"


def _where(problem: Any) -> str:
    # Pydantic adds which branch of "a number or 'auto'" it tried; nobody set that.
    tried = ("[", "-")
    return ".".join(str(part) for part in problem["loc"] if part != "method" and not any(c in str(part) for c in tried))
