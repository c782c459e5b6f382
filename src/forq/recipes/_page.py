"""docs/settings.md, made from the typed settings and their docstrings: ``python -m forq.recipes._page``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from forq.coordinates.leaf import GROUPS
from forq.plugins import registry
from forq.recipes.probe import EstimatorSettings
from forq.recipes.settings import GroupSettings, LoraSettings, Settings
from forq.recipes.step import RuleSettings

_HEAD = """# Settings

This page is generated from the settings' own descriptions (`python -m forq.recipes._page`).

`--set NAME=VALUE` changes a setting of `forq tune`; in Python it is `settings={"rule": {"newton": 0.5}}`. A recipe
sets some of them, and the others have the default shown here; [recipes](recipes.md) says what they do together. The
settings of a run are in `RUN/config.toml`. Options of a task are set as `task.NAME` ([tasks](tasks.md)), those of a
watched data set as `watch.NAME.OPTION` ([watch](watch.md)).
"""

_PARTS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("What moves", "", Settings),
    ("What a step probes", "estimator.", EstimatorSettings),
    ("What a step does", "rule.", RuleSettings),
    ("Adapters", "lora.", LoraSettings),
    ("One kind of parameters", "KIND.", GroupSettings),
)
_APART = ("estimator", "rule", "groups", "lora", "decisions")
"""Fields of a method with a part of their own, and one that nobody chooses."""

_FAMILIES = {"estimators": "Estimators (`estimator.name`)", "noises": "Noise laws (`estimator.noise`)"}
_BOUNDS = {"exclusiveMinimum": "> {:,}", "minimum": "≥ {:,}", "exclusiveMaximum": "< {:,}", "maximum": "≤ {:,}"}
_TYPES = {
    "number": "number",
    "integer": "whole number",
    "string": "text",
    "boolean": "`true`, `false`",
    "array": "list",
}


def page() -> str:
    """All settings of a method, with their values, their defaults and what they do."""
    parts = [_HEAD]
    for title, front, model in _PARTS:
        rows = ["| setting | values | default | meaning |", "|---|---|---|---|", *_rows(front, model)]
        kinds = f"KIND is one of {', '.join(f'`{kind}`' for kind in GROUPS)}.\n\n" if front == "KIND." else ""
        parts.append(f"## {title}\n\n{kinds}" + "\n".join(rows) + "\n")
    for family, title in _FAMILIES.items():
        rows = [
            "| name | what it is |",
            "|---|---|",
            *(f"| `{name}` | {_plain(registry.summary(family, name))} |" for name in registry.names(family)),
        ]
        parts.append(f"## {title}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _rows(front: str, model: type[BaseModel]) -> Iterator[str]:
    meanings, schema = described(model), model.model_json_schema()["properties"]
    own = [name for kind in model.__mro__ for name in inspect.get_annotations(kind)]
    for name in dict.fromkeys(own):
        if name in schema and name not in _APART:
            field = model.model_fields[name]
            default = "the recipe's" if field.is_required() else _shown(field.get_default(call_default_factory=True))
            default = "the method's" if front == "KIND." else default
            yield f"| `{front}{name}` | {_values(schema[name])} | {default} | {meanings[name]} |"


def described(model: type[BaseModel]) -> dict[str, str]:
    """What each field means: the sections ``Attributes:`` of a model and of the models it inherits from."""
    found: dict[str, str] = {}
    for kind in model.__mro__:
        _, _, listed = (inspect.cleandoc(kind.__dict__.get("__doc__") or "")).partition("Attributes:\n")
        for entry in re.split(r"\n(?= {4}\w)", f"\n{listed}")[1:]:
            name, _, text = " ".join(entry.split()).partition(": ")
            found.setdefault(name, _plain(text))
    return found


def _plain(text: str) -> str:
    text = re.sub(r" \((?:see )?:\w+:`[^`]+`\)", "", text)
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`").replace("|", "\\|")


def _values(schema: Mapping[str, Any]) -> str:
    """The values that a field may have."""
    if "anyOf" in schema:
        return ", ".join(_values(one) for one in schema["anyOf"] if one.get("type") != "null")
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{choice}`" for choice in choices)
    bounds = [words.format(schema[bound]) for bound, words in _BOUNDS.items() if bound in schema]
    return ", ".join([" ".join([_TYPES[schema["type"]], *bounds[:1]]), *bounds[1:]])


def _shown(value: object) -> str:
    if value in (None, ()):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
