"""Plug-ins: a new noise, estimator, rule, format, task or recipe is one new file; nothing else registers it.

Listing imports nothing, so a plug-in whose optional dependency is missing breaks no other. Sub-packages, ``base``
and modules whose name starts with ``_`` are never plug-ins.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

from forq.errors import ConfigError

FAMILIES = {
    "attacks": "attacks.methods",
    "estimators": "scalars.estimators",
    "formats": "formats",
    "noises": "noise.laws",
    "recipes": "recipes.presets",
    "rules": "scalars.rules",
    "tasks": "tasks",
}
"""The package of each family of plug-ins, relative to ``forq``."""

_ROOT = Path(__file__).parents[1]


@cache
def names(family: str) -> tuple[str, ...]:
    """Sorted names of the plug-ins of a family (``noises``, ``rules``, …). Nothing is imported."""
    modules = pkgutil.iter_modules([str(_ROOT.joinpath(*FAMILIES[family].split(".")))])
    plugins = (module.name for module in modules if not module.ispkg and not module.name.startswith("_"))
    return tuple(sorted(name for name in plugins if name != "base"))


def source(family: str, name: str) -> Path:
    """The file of a plug-in."""
    return _ROOT.joinpath(*FAMILIES[family].split("."), f"{name}.py")


def summary(family: str, name: str) -> str:
    """First paragraph of a plug-in's docstring, on one line. Nothing is imported."""
    text = ast.get_docstring(ast.parse(source(family, name).read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def shown(family: str, name: str) -> str:
    """A plug-in's name for display: with hyphens for recipes, tasks and attacks, with underscores for others."""
    return name.replace("_", "-") if family in ("recipes", "tasks", "attacks") else name


def nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    """`` (did you mean 'x'?)`` for a likely typing error, otherwise an empty text."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def get(family: str, name: str) -> Any:
    """Import a plug-in's module.

    Raises:
        ConfigError: there is no such plug-in; the message lists all names and suggests the nearest.
    """
    known = names(family)
    plain = name.replace("-", "_")
    if plain not in known:
        displayed = [shown(family, plugin) for plugin in known]
        raise ConfigError(
            f"no {family.removesuffix('s')} is called {name!r}{nearest(shown(family, plain), displayed)}; "
            f"known: {', '.join(displayed)}"
        )
    return importlib.import_module(f"forq.{FAMILIES[family]}.{plain}")
