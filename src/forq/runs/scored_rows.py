"""Which rows `forq eval` scores: all of new data, or those that training holds out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from forq.errors import ConfigError
from forq.models.loaded import LoadedModel
from forq.runs.config import TaskConfig
from forq.runs.fixed_options import SourceRun, task_of_run
from forq.runs.open_task import may_be_whole, open_task
from forq.runs.own_rows import changed, is_own, unlimited
from forq.tasks import Split, Task, account

Named = Literal["test", "validation", "all"]


def named_split(text: str | None, task: str) -> Named | None:
    """A split as a user gives it, checked before a model is loaded.

    Raises:
        ConfigError: there is no such split, or the task does not know ``all``.
    """
    if text not in (None, "test", "validation", "all"):
        raise ConfigError(f"split: expected test, validation or all, found {text!r}")
    if text == "all" and not may_be_whole(task):
        raise ConfigError(f"split: {task} has no 'all': expected test or validation")
    return cast("Named | None", text)


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """A task opened for a score.

    Attributes:
        settings: the task's, with the options of the run.
        part: the split whose rows are scored; of data that is scored whole, all rows are in ``test``.
        named: the split as a user calls it: ``test``, ``validation`` or ``all``.
        warning: why the score may be of rows that were trained on; None: it is not.
        note: which rows these are, where a user may expect others.
    """

    task: Task
    settings: TaskConfig
    part: Split
    named: Named
    warning: str | None
    note: str | None


def scored_rows(
    model: LoadedModel, run: SourceRun | None, asked: TaskConfig, split: Named | None = None, seed: int | None = None
) -> ScoredRows:
    """Open a task for a score. Data that names no splits is scored whole if it is new to the run.

    Args:
        run: the run that saved the model; None: a checkpoint of no run.
        asked: the task's settings as the user gives them; those of the run are added.
        split: None: all rows of data that is new to a run, else ``test``.
        seed: None: the run's, or 0.

    Raises:
        ConfigError: the data names its splits, and ``all`` is asked for; or the task cannot be opened with these
            settings.
        DataError: the data cannot be used.
    """
    may_be = may_be_whole(asked.name)
    part: Literal["test", "validation"] = "validation" if split == "validation" else "test"
    settings, described = task_of_run(run, asked)
    if seed is None:
        seed = 0 if run is None else run.seed
    own = run is not None and may_be and split in (None, "all") and is_own(run, settings.data, model)
    whole = may_be and (split == "all" or (split is None and run is not None and not own))
    if whole:
        settings = unlimited(asked, settings)
    task = open_task(settings, model, seed, described, whole=whole)
    rows = account(task)
    if split == "all" and "train" in rows.splits:
        raise ConfigError(f"split all: expected data that names no splits, but {settings.data} does; name test")
    warning = note = None
    if run is not None and not whole and seed == run.seed and changed(run, settings, task):
        warning = f"{settings.data} was changed after the run: rows that are scored may have been trained on"
    if own and whole:
        note = "the run was trained on most of these rows"
    elif may_be and run is None and split is None and part in rows.drawn:
        read = rows.only(part).read(part)
        note = f"of {read:,} rows those are scored that training on them would hold out; --split all scores all"
    return ScoredRows(task, settings, part, split or part, warning, note)
