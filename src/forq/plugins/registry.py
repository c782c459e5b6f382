"""Plug-ins by listing: a new noise, estimator, rule, format, task or recipe is one new file, and nothing else.

Listing imports nothing, so a plug-in whose optional dependency is missing breaks no other. Sub-packages, ``base``
and modules whose name starts with ``_`` are never plug-ins.
"""

from __future__ import annotations

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
"""The package each family of plug-ins lives in, below ``forq``."""

_ROOT = Path(__file__).parents[1]


@cache
def names(family: str) -> tuple[str, ...]:
    """Names of the plug-ins of a family (``noises``, ``rules``, …), sorted, without importing one."""
    modules = pkgutil.iter_modules([str(_ROOT.joinpath(*FAMILIES[family].split(".")))])
    plugins = (module.name for module in modules if not module.ispkg and not module.name.startswith("_"))
    return tuple(sorted(name for name in plugins if name != "base"))


def source(family: str, name: str) -> Path:
    """The file of a plug-in."""
    return _ROOT.joinpath(*FAMILIES[family].split("."), f"{name}.py")


def shown(family: str, name: str) -> str:
    """A plug-in's name as people write it: ``zoqo-paper`` of a recipe or an attack, ``three_point`` of the others."""
    return name.replace("_", "-") if family in ("recipes", "attacks") else name


def nearest(name: str, known: tuple[str, ...] | list[str]) -> str:
    """`` (did you mean 'x'?)`` for a likely slip of the pen, else nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def get(family: str, name: str) -> Any:
    """The module of one plug-in.

    Raises:
        ConfigError: no such plug-in; the message lists the known and names the nearest.
    """
    known = names(family)
    plain = name.replace("-", "_")
    if plain not in known:
        told = [shown(family, one) for one in known]
        raise ConfigError(
            f"no {family.removesuffix('s')} is called {name!r}{nearest(shown(family, plain), told)}; "
            f"known: {', '.join(told)}"
        )
    return importlib.import_module(f"forq.{FAMILIES[family]}.{plain}")
