"""Runs that an older forq began: an option of a task that is newer than the run keeps its old meaning."""

from __future__ import annotations

from collections.abc import Mapping

from forq.runs.config import RunConfig

BALANCED = "balanced"
"""Option of classification tasks, on by default. Before it existed, all rows took part alike."""


def unbalanced(task: object) -> bool:
    """Whether a header's description of a task is of classes, and from before batches were balanced."""
    return isinstance(task, Mapping) and "labels" in task and BALANCED not in task


def as_begun(config: RunConfig, header: Mapping[str, object]) -> RunConfig:
    """Settings for a run that has begun: an option that is newer than the run is off, unless they name it.

    Args:
        header: the header of the run's journal.
    """
    options = config.task.options
    if BALANCED in options or not unbalanced(header.get("task")):
        return config
    task = config.task.model_copy(update={"options": {**options, BALANCED: False}})
    return config.model_copy(update={"task": task})
