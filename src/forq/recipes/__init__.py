"""Recipes: a method of a paper, or ours, as a named set of settings. One recipe, one file."""

from __future__ import annotations

from dataclasses import dataclass

from forq.plugins import registry
from forq.recipes.groups import CELLS
from forq.recipes.settings import EstimatorSettings, GroupSettings, LoraSettings, RuleSettings, Settings

__all__ = [
    "CELLS",
    "DEFAULT",
    "DEFAULT_OF_REWARDS",
    "EstimatorSettings",
    "GroupSettings",
    "LoraSettings",
    "Recipe",
    "RuleSettings",
    "Settings",
    "recipe",
]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A preset, and where it comes from."""

    summary: str
    source: str
    settings: Settings


DEFAULT = "qzo"
"""The recipe where none is named and the objective is the task's own loss."""

DEFAULT_OF_REWARDS = "qzo-slopes"
"""The same of a reward, along which no curvature can be measured."""


def recipe(name: str) -> Recipe:
    """The recipe of that name (dashes and underscores are alike).

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    found: Recipe = registry.get("recipes", name).recipe
    return found
