"""Runs that an older forq began: an option of a task that is newer than the run keeps its old meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forq.errors import ConfigError
from forq.noise.law import AUTO
from forq.recipes.settings import Settings, settings
from forq.runs.config import RunConfig
from forq.runs.dotted_settings import Option
from forq.runs.settled import FACTORS
from forq.scalars.chain import own
from forq.scalars.rules import newton
from forq.tasks.kinds.examples import NEWEST
from forq.tasks.rows import corpus

NAMES = ("recipe", "seed", "steps")
"""What a header says of the method beside its settings."""

BALANCED = "balanced"
"""Option of classification tasks, on by default. Before it existed, all rows took part alike."""

READING = "reading"
"""Option of tasks: the law of rows for a head or an encoder, or of a text. Before it existed, law 1 held."""

TEXT = "text"
"""Name of the task on plain texts."""


def unbalanced(task: object) -> bool:
    """Whether a header's description of a task is of classes, and from before batches were balanced."""
    return isinstance(task, Mapping) and "labels" in task and BALANCED not in task


def earlier_reading(task: object) -> int | None:
    """The law of a text, or of rows for a head or an encoder, in a header's description, if new runs are not of it."""
    if not isinstance(task, Mapping):
        return None
    newest = 1
    if task.get("task") == TEXT:
        newest = corpus.NEWEST
    elif task.get("by") in ("head", "similarity"):
        newest = NEWEST
    law = task.get(READING, 1)
    return law if isinstance(law, int) and law < newest else None


def with_reading_law(options: Mapping[str, Option], task: object) -> dict[str, Option]:
    """Options of a task for a run that has begun: they read rows by the run's law, unless they name one.

    Args:
        task: the description of the run's task.
    """
    law = earlier_reading(task)
    return {**({} if law is None else {READING: law}), **options}


def with_old_meanings(config: RunConfig, header: Mapping[str, object]) -> RunConfig:
    """Settings for a run that has begun: an option that is newer than the run is off, unless they name it.

    Args:
        header: the header of the run's journal.
    """
    config = with_settled_method(config, header)
    described, options = header.get("task"), config.task.options
    older = with_reading_law({**({BALANCED: False} if unbalanced(described) else {}), **options}, described)
    if older != options:
        config = config.model_copy(update={"task": config.task.model_copy(update={"options": older})})
    watched = header.get("watch")
    return _as_watched(config, watched) if isinstance(watched, Mapping) else config


def _as_watched(config: RunConfig, watched: Mapping[str, object]) -> RunConfig:
    """Settings whose watched texts are read by the law of the run; ``watched`` is the header's description of them."""
    laws = {
        name: earlier_reading(described)
        for name, described in watched.items()
        if isinstance(described, Mapping) and described.get("task") == TEXT
    }
    watches = {
        name: watch
        if (law := laws.get(name)) is None
        else watch.model_copy(update={"options": {READING: law, **watch.options}})
        for name, watch in config.watch.items()
    }
    return config if watches == config.watch else config.model_copy(update={"watch": watches})


def with_settled_method(config: RunConfig, header: Mapping[str, object]) -> RunConfig:
    """Settings for a run that has begun, with what it settled by itself.

    Its blocks go on to move. Where all rows shared their directions, they go on to share them.
    """
    begun = _method(header)
    if begun is not None:
        config = config.model_copy(update={"method": with_settled(config.method, settings(begun))})
    together = config.method.with_shared_directions()
    if together == config.method or begun != together.model_dump(mode="json"):
        return config
    return config.model_copy(update={"method": together})


def with_settled(method: Settings, begun: Settings) -> Settings:
    """A method, with what it leaves ``auto`` as a run has settled it (:mod:`forq.runs.settled`), and its decisions."""
    method = method.model_copy(update={"decisions": begun.decisions})
    if method.estimator.noise == (AUTO,):
        name = begun.estimator.name if begun.by_layer and not begun.by_row else method.estimator.name
        probe = method.estimator.model_copy(update={"name": name, "noise": begun.estimator.noise})
        unit = begun.unit if begun.by_layer and method.unit in FACTORS else method.unit
        method = method.model_copy(update={"estimator": probe, "unit": unit})
    if method.blocks == "auto":
        method = method.model_copy(update={"blocks": begun.blocks})
    if own(method.rule, newton.Settings).damping == "auto":
        damping = own(begun.rule, newton.Settings).damping
        method = method.model_copy(update={"rule": method.rule.model_copy(update={"damping": damping})})
    return method


def _method(header: Mapping[str, object]) -> dict[str, Any] | None:
    """The method's settings in a header, as JSON has them; None where they cannot be read."""
    method = header.get("method")
    if not isinstance(method, Mapping):
        return None
    try:
        return settings({key: value for key, value in method.items() if key not in NAMES}).model_dump(mode="json")
    except ConfigError:
        return None
