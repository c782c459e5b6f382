"""Settings by their dotted names, as ``--set`` and mappings give them."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from forq.coordinates.leaf import GROUPS
from forq.errors import ConfigError
from forq.plugins import registry
from forq.recipes.settings import GroupSettings

Option = int | float | str | bool


def flat(changes: Mapping[str, object], front: str = "") -> Iterator[tuple[str, object]]:
    """Dotted names and values of a nested mapping."""
    for key, value in changes.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{front}{key}.")
        else:
            yield f"{front}{key}", value


def put(tree: dict[str, Any], key: str, value: object) -> None:
    """Change a setting in a run's settings as plain values.

    Raises:
        ConfigError: no setting has that name (the nearest is named).
    """
    head, _, rest = key.partition(".")
    if head == "task" and rest:
        tree["task"]["options"][rest] = value
        return
    if head == "watch" and rest:
        _put_watch(tree["watch"], rest, value)
        return
    method = tree["method"]
    if head in GROUPS and rest in GroupSettings.model_fields:
        method["groups"].setdefault(head, {})[rest] = value
        return
    parts = {name: inner for name, inner in method.items() if name != "groups"}
    known = [name for name, inner in parts.items() if not isinstance(inner, dict)]
    known += [f"{name}.{leaf}" for name, inner in parts.items() if isinstance(inner, dict) for leaf in inner]
    if key not in known:
        near = _likely(key, [*known, *(f"task.{option}" for option in options(str(tree["task"]["name"])))])
        listed = f"; known: {', '.join(known)}, GROUP.eps, GROUP.lr, … (GROUP: {', '.join(GROUPS)}), task.…"
        raise ConfigError(f"no setting is called {key!r}{near or listed}")
    (method[head] if rest else method)[rest or head] = value


def _likely(key: str, known: list[str]) -> str:
    """`` (did you mean 'task.batch_rows'?)``: the settings whose last part the key is, or the nearest."""
    last = key.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == last]
    return f" (did you mean {' or '.join(map(repr, same))}?)" if same else registry.nearest(key, known)


def options(task: str) -> Mapping[str, inspect.Parameter]:
    """The arguments of a task's ``open``; none where the task is an object of the user's."""
    try:
        return inspect.signature(registry.get("tasks", task).open).parameters
    except ConfigError:
        return {}


def _put_watch(watches: dict[str, Any], key: str, value: object) -> None:
    name, _, option = key.partition(".")
    if name not in watches or not option:
        known = ", ".join(f"watch.{name}.OPTION" for name in watches) or "no --watch is given"
        raise ConfigError(f"--set: no setting is called {f'watch.{key}'!r}; known: {known}")
    (watches[name] if option in ("rows", "limit") else watches[name]["options"])[option] = value


def parsed(text: str) -> Option:
    """A value from its text in TOML; text that is none stands for itself."""
    try:
        found = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return found if isinstance(found, int | float | str | bool) else text
