"""What pydantic refuses, in forq's words: each setting with all that it may be, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

_TYPES = {
    "float": "a number",
    "int": "a whole number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table of settings",
    "model": "a table of settings",
    "mapping": "a table of settings",
}
_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


def refusal(error: ValidationError) -> str:
    """One sentence for each setting: ``rule.lr: expected a number or 'auto', found 'fast'``."""
    wanted: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for problem in error.errors():
        where = _where(problem)
        wanted.setdefault(where, []).append(_wanted(problem))
        found[where] = "none" if problem["type"] == "missing" else repr(problem.get("input"))
    return "; ".join(
        f"{where}: expected {' or '.join(dict.fromkeys(words))}, found {found[where]}"
        for where, words in wanted.items()
    )


def _wanted(problem: Mapping[str, Any]) -> str:
    kind, limits = str(problem["type"]), problem.get("ctx", {})
    if kind == "literal_error":
        return str(limits["expected"])
    if kind == "missing":
        return "a value"
    if kind == "extra_forbidden":
        return "no setting of that name"
    for bound, words in _BOUNDS.items():
        if bound in limits:
            return f"{words} {limits[bound]:g}"
    return _TYPES.get(kind.partition("_")[0], str(problem["msg"]).lower())


def _where(problem: Mapping[str, Any]) -> str:
    # Pydantic adds which branch of "a number or 'auto'" it tried; nobody set that.
    tried = ("[", "-")
    return ".".join(str(part) for part in problem["loc"] if part != "method" and not any(c in str(part) for c in tried))
