"""Plug-ins by listing: a new noise, estimator, rule, format, task or recipe is one new file, and nothing else.

Listing imports nothing, so a plug-in whose optional dependency is missing breaks no other. Sub-packages and
modules whose name starts with ``_`` are machinery of the family, never plug-ins.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Any

from forq.core import ConfigError


@cache
def names(family: str) -> tuple[str, ...]:
    """Names of the plug-ins of a family (``noises``, ``rules``, …), sorted, without importing one."""
    folder = Path(__file__).parent / family
    found = pkgutil.iter_modules([str(folder)])
    return tuple(sorted(one.name for one in found if not one.ispkg and not one.name.startswith("_")))


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
    return importlib.import_module(f"forq.{family}.{plain}")
