"""Recipes: a method of a paper, or ours, as a named set of settings. One recipe, one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from forq import registry
from forq.core import Rule
from forq.engine import Method, Plan
from forq.rules.clip import Clip
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
    """What is done with the estimate. Defaults change nothing, so a recipe names what it uses."""

    lr: Positive | Literal["auto"]
    clip: Positive | Literal["auto", "off"] = "off"


class Settings(Frozen):
    """All that tells one recipe from another.

    Attributes:
        move: the kinds of leaves that move: ``scales``, ``norms``, ``dense``, ``all-float``.
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


def recipe(name: str) -> Recipe:
    """The recipe of that name (dashes and underscores are alike).

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    found: Recipe = registry.get("recipes", name).recipe
    return found


def plan(settings: Settings, *, seed: int, steps: int) -> Plan:
    """The method the settings mean, or the calibration that finds what they leave ``auto``."""
    estimator = registry.get("estimators", settings.estimator.name).make(
        seed=seed,
        eps=settings.estimator.eps,
        directions=settings.estimator.directions,
        noise=settings.estimator.noise,
    )
    rules: list[Rule] = []
    if settings.rule.clip != "off":
        rules.append(Clip(settings.rule.clip))
    return Method(estimator, (*rules, SGD(settings.rule.lr)))
