"""Options of a task that a run fixes when it begins: the moment its rows were rendered, the prior of its words.

A run keeps them in its config.toml, so that a later session, and a score of what it saved, have the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from forq.errors import ConfigError
from forq.layers.linear import Activations
from forq.models.options import on_device
from forq.plugins import registry
from forq.runs import config as configs
from forq.runs import journal
from forq.runs.config import RunConfig, TaskConfig
from forq.runs.dotted_settings import Option
from forq.runs.older_runs import with_reading_law
from forq.tasks import Task

FACTS = ("moment", "prior")
"""Options whose value a task's description says, under the same name."""

PROMPT = ("prompt", "labels", "by", "second")
"""Options that say what a row is asked, and so what a prior was measured on."""


def fix_options(config: TaskConfig, task: Task) -> TaskConfig:
    """A task's settings with what opening it has fixed."""
    described = task.describe()
    found = {name: str(described[name]) for name in FACTS if described.get(name) is not None}
    return config.model_copy(update={"options": {**config.options, **found}})


def fixed_options(config: TaskConfig) -> dict[str, Option]:
    """What a run's settings fix."""
    return {name: value for name in FACTS if isinstance(value := config.options.get(name), str)}


def with_fixed_options(asked: RunConfig, run: RunConfig) -> RunConfig:
    """Settings with what the run has fixed, unless they name it."""
    options = {**fixed_options(run.task), **asked.task.options}
    return asked.model_copy(update={"task": asked.task.model_copy(update={"options": options})})


@dataclass(frozen=True, slots=True)
class SourceRun:
    """The run that saved a checkpoint.

    Attributes:
        task, seed, activations: as in its settings.
        described: its task, as the journal's header has it.
    """

    task: TaskConfig
    seed: int
    described: dict[str, Any]
    activations: Activations = "float"

    def own_data(self, task: str) -> str | None:
        """The run's data, if this is its task and the data is still there.

        Raises:
            ConfigError: the run was given an open task, whose data has no path.
        """
        own = self.task.data
        if own == "" and same_name(self.task.name, task):
            raise ConfigError(_no_path(self.task.name))
        there = own.startswith("hf:") or (own != "" and Path(own).exists())
        return own if there and same_name(self.task.name, task) else None


def _no_path(task: str) -> str:
    """Why the data of a run on an open task is not found, and what to do."""
    given = f"expected the data of the run, found a run that was given an open task ({task})"
    if task.replace("-", "_") in registry.names("tasks"):
        return f"{given}; name its data with --data"
    return f"{given}; score it in Python: open the task, and task.evaluate(forq.load('RUN/checkpoint'), 'test')"


def activations_of(run: SourceRun | None, asked: str | None, device: str, kernel: str) -> Activations:
    """What a model is scored in: as asked for, else as the run computed, where device and kernel can."""
    if asked is not None or run is None:
        return cast(Activations, asked or "float")
    return "float" if run.activations == "bfloat16" and kernel == "ort" else on_device(run.activations, device)


def source_run(checkpoint: str) -> SourceRun | None:
    """The run of a checkpoint: its folder, a folder inside it, or a file of its ``checkpoint``; None for others."""
    place = Path(checkpoint).absolute()
    inside = [place.parent.parent] if place.is_file() and place.parent.name == "checkpoint" else []
    for run in (place, place.parent, *inside):
        if (run / "journal.jsonl").is_file() and (run / "config.toml").is_file():
            described = journal.read(run / "journal.jsonl").header.get("task")
            config = configs.read(run / "config.toml")
            task = config.task.model_copy(update={"options": with_reading_law(config.task.options, described)})
            return SourceRun(task, config.seed, dict(described or {}), config.activations)
    return None


def same_name(one: str, other: str) -> bool:
    """Whether two names are of the same task: its file's, or as a user types it."""
    return one.replace("-", "_") == other.replace("-", "_")


def task_of_run(run: SourceRun | None, asked: TaskConfig) -> tuple[TaskConfig, dict[str, Any]]:
    """A task as the run that saved a checkpoint has it, if the run's task is the same.

    Returns:
        The settings, with the options of the run that are not asked for. They decide how a row is read,
        and which rows were held out. Then the description of the run's task, which holds its classes;
        empty where other labels are asked for.

    Raises:
        ConfigError: this version would hold out other rows than the run did.
    """
    if run is None or not same_name(run.task.name, asked.name):
        return asked, {}
    law, now = run.described.get("law", 1), getattr(registry.get("tasks", asked.name), "LAW", 1)
    if law != now:
        raise ConfigError(
            f"{asked.name}: expected a run whose held-out rows are drawn by law {now}, found law {law} of an earlier "
            "version, which drew others; score the saved file by its own path, on data with a test split of its own"
        )
    options = with_facts(run.task.options, asked.options)
    return asked.model_copy(update={"options": options}), {} if "labels" in asked.options else run.described


def with_facts(run: Mapping[str, Option], asked: Mapping[str, Option]) -> dict[str, Option]:
    """The options of a run, changed by those asked for; its prior is dropped where they change what a row is asked."""
    changed = any(asked.get(name, run.get(name)) != run.get(name) for name in PROMPT)
    kept = {name: value for name, value in run.items() if not (changed and name == "prior" and isinstance(value, str))}
    return {**kept, **asked}
