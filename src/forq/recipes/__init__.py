"""Recipes: a method of a paper, or ours, as a named set of settings. One recipe, one file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forq.coordinates.leaf import INTEGERS
from forq.plugins import registry
from forq.recipes.groups import CELLS
from forq.recipes.probe import EstimatorSettings
from forq.recipes.settings import GroupSettings, LoraSettings, Settings
from forq.recipes.step import RuleSettings
from forq.tokens.model import Kind

__all__ = [
    "CELLS",
    "EstimatorSettings",
    "GroupSettings",
    "LoraSettings",
    "Recipe",
    "RuleSettings",
    "Settings",
    "default_recipe",
    "recipe",
]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A preset, and where it comes from.

    Attributes:
        baseline: it is there to compare with: no row of results/README.md, section x, recommends it. ``forq ls`` reads
            this from the file, as it is written, and shows such a recipe only with ``--all``.
    """

    summary: str
    source: str
    settings: Settings
    baseline: bool = False


def default_recipe(*, kind: Kind, reward: bool, changed: Iterable[str], move: str) -> str:
    """The recipe where none is named.

    It is ``qzo``, and ``qzo-shared`` for encoders, classifiers, images and diffusion, where all rows share their
    directions. It is ``qzo-slopes`` for a reward, along which no curvature can be measured; where a rate or a clip is
    set, which a step ``newton`` does not have; for adapters, where such steps were not better (results/README.md,
    section i); and for integers, where they were not compared.

    Args:
        kind: of the model.
        changed: dotted names of the settings that are changed.
        move: kinds of leaves that move, separated by commas; empty: the recipe's.
    """
    rates = any(name.rpartition(".")[2] in ("lr", "clip") for name in changed)
    others = {kind.strip() for kind in move.split(",")} & {*INTEGERS, "lora"}
    if reward or rates or others:
        return "qzo-slopes"
    return "qzo" if kind == "causal" else "qzo-shared"


def recipe(name: str) -> Recipe:
    """The recipe of that name (dashes and underscores are alike).

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    found: Recipe = registry.get("recipes", name).recipe
    return found
