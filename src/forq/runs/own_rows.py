"""Whether data is what a run was tuned on: of that only the held-out rows say how good the run is."""

from __future__ import annotations

from pathlib import Path

from forq.errors import ForqError
from forq.models.loaded import LoadedModel
from forq.runs.config import TaskConfig
from forq.runs.fixed_options import SourceRun
from forq.runs.older_runs import unbalanced
from forq.runs.open_task import open_task
from forq.tasks import Task

LIMITS = ("train_rows", "validation_rows", "test_rows")
"""Options that say how many rows of a data set are used."""


def is_own(run: SourceRun, data: str, model: LoadedModel) -> bool:
    """Whether data is the run's: it lies at the same place, or is the same by the digest of the run's task.

    Args:
        model: what the run saved, or its base; its tokenizer reads the data.
    """
    if _place(data) == _place(run.task.data):
        return True
    try:
        moved = open_task(run.task.model_copy(update={"data": data}), model, run.seed, run.described)
    except ForqError:  # the run could not have been begun with it
        return False
    return moved.describe().get("digest") == run.described.get("digest")


def changed(run: SourceRun, settings: TaskConfig, task: Task) -> bool:
    """Whether the data at the run's place is not what the run was tuned on; false where other settings hide it.

    Args:
        task: the task, opened with the settings and the run's seed.
    """
    written, now = run.described.get("digest"), task.describe().get("digest")
    there = _place(settings.data) == _place(run.task.data)
    alike = settings.model_copy(update={"data": run.task.data}) == run.task
    # Runs of earlier versions had no balanced batches, and so another digest of the same rows.
    return there and alike and written != now and not unbalanced(run.described)


def unlimited(asked: TaskConfig, settings: TaskConfig) -> TaskConfig:
    """Settings without the run's limits on rows, which are of its own data; those that are asked for stay."""
    options = {name: value for name, value in settings.options.items() if name not in LIMITS or name in asked.options}
    return settings.model_copy(update={"options": options})


def _place(data: str) -> str:
    return data if data.startswith("hf:") else str(Path(data).resolve())
