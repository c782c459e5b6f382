"""Recipes: a method of a paper, or ours, as a named set of settings. One recipe, one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from forq import registry
from forq.calibrations import calibrate
from forq.core import ConfigError, Method, Rule
from forq.engine import Plan
from forq.rules.clip import Clip
from forq.rules.decay import Decay
from forq.rules.sgd import SGD

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Frozen(BaseModel):
    """A setting group: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EstimatorSettings(Frozen):
    """What a step probes."""

    name: str
    eps: Positive | Literal["auto"]
    directions: Annotated[int, Field(ge=1, le=1 << 20)] = 1
    noise: tuple[str, ...] = ("rademacher",)

    @field_validator("noise", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class RuleSettings(Frozen):
    """What is done with the estimate. Defaults change nothing, so a recipe names what it uses.

    Attributes:
        lr: η; ``auto`` is ``newton`` · N / tr(H) with the trace measured by the calibration.
        clip: bound of each directional derivative.
        decay: how the step shrinks over the run, see :mod:`forq.rules.decay`.
        newton: share of the greediest stable step that ``auto`` dares.
    """

    lr: Positive | Literal["auto"]
    clip: Positive | Literal["auto", "off"] = "off"
    decay: Literal["none", "linear", "late"] = "none"
    newton: Annotated[float, Field(gt=0, le=1)] = 0.25


class Settings(Frozen):
    """All that tells one recipe from another.

    Attributes:
        move: the kinds of leaves that move: ``scales``, ``norms``, ``biases``, ``dense``, ``all-float``.
        unit: what eps and lr are measured in: ``relative`` to each coordinate's start, ``absolute`` with
            bounds that keep signs, ``free`` without bounds.
    """

    move: str
    unit: Literal["relative", "absolute", "free"]
    estimator: EstimatorSettings
    rule: RuleSettings


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


def plan(chosen: Settings, *, seed: int, steps: int) -> Plan:
    """The method the settings mean, or the calibration that finds what they leave ``auto``."""
    probe, rule = chosen.estimator, chosen.rule
    make = registry.get("estimators", probe.name).make

    def method(eps: float, lr: float, clip: float | None, first: int, found: Mapping[str, float] | None) -> Method:
        estimator = make(seed=seed, eps=eps, directions=probe.directions, noise=probe.noise)
        rules: list[Rule] = [] if clip is None else [Clip(clip)]
        if rule.decay != "none":
            rules.append(Decay(rule.decay, first, steps))
        return Method(estimator, (*rules, SGD(lr)), found)

    def finish(eps: float, lr: float, clip: float, first: int, found: Mapping[str, float]) -> Method:
        chosen_lr = lr if rule.lr == "auto" else rule.lr
        chosen_clip = clip if rule.clip == "auto" else _or_none(rule.clip)
        return method(eps, chosen_lr, chosen_clip, first, found)

    if probe.eps != "auto" and rule.lr != "auto" and rule.clip != "auto":
        return method(probe.eps, rule.lr, _or_none(rule.clip), 0, None)
    if chosen.unit != "relative" and probe.eps == "auto":
        raise ConfigError(f"estimator.eps: 'auto' tries relative radii, with unit {chosen.unit!r} give a number")
    forwards = make(seed=seed, eps=1.0, directions=probe.directions, noise=probe.noise).forwards
    return lambda: calibrate(
        seed=seed,
        noise=probe.noise,
        directions=probe.directions,
        forwards=steps * forwards,
        newton=rule.newton,
        eps=None if probe.eps == "auto" else probe.eps,
        finish=finish,
    )


def _or_none(clip: float | str) -> float | None:
    return None if isinstance(clip, str) else float(clip)


def _say(problem: Any) -> str:
    return f"{_where(problem)}: {problem['msg'].lower()}, found {problem.get('input')!r}"


def _where(problem: Any) -> str:
    # Pydantic adds which branch of "a number or 'auto'" it tried; nobody set that.
    tried = ("[", "-")
    return ".".join(str(part) for part in problem["loc"] if part != "method" and not any(c in str(part) for c in tried))
