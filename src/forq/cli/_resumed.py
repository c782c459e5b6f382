"""What a command line means for a run: its settings at the first call, and whether a later call agrees with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import typer

from forq.checkpoints import Checkpoint
from forq.cli import _arguments as given
from forq.cli import _watch
from forq.errors import ConfigError, ForqError
from forq.models.families import kind_of
from forq.recipes.plan import steps_within
from forq.runs import agreement, journal
from forq.runs import config as configs
from forq.runs.config import RunConfig, TaskConfig, complete
from forq.runs.older_runs import with_old_meanings, with_settled
from forq.runs.open_task import open_task
from forq.tokens.model import Kind

if TYPE_CHECKING:
    from forq.runs.outcome import Result

_PLACES = {
    "--task": "task.name",
    "--recipe": "recipe",
    "--steps": "steps",
    "--seed": "seed",
    "--eval-every": "eval_every",
    "--reward": "task.reward",
    "--tokens-per-probe": "task.tokens_per_probe",
    "--micro-batch-tokens": "task.micro_batch_tokens",
    "--activations": "activations",
    "--move": "method.move",
    "--blocks": "method.blocks",
    "--rank": "method.lora.rank",
    "--alpha": "method.lora.alpha",
    "--targets": "method.lora.targets",
    "--bits": "method.lora.bits",
}
"""Where a setting of the command line stands among those of a run."""

_LORA = ("--rank", "--alpha", "--targets", "--bits")


@dataclass(frozen=True, slots=True)
class Asked:
    """A command line: the options it names, and no others.

    Attributes:
        options: by their names; those of ``_PLACES``, and ``--forwards``.
        sets: the texts of ``--set``.
        watch: ``TASK:DATA`` by name.
    """

    checkpoint: str
    options: Mapping[str, Any]
    sets: tuple[str, ...]
    data: str | None
    profile: Path | None
    adapter: Path | None
    device: str | None
    kernel: str | None
    watch: Mapping[str, str] = field(default_factory=dict)
    watch_limit: Mapping[str, float] = field(default_factory=dict)


def first(asked: Asked) -> RunConfig:
    """The settings of a run that begins.

    Raises:
        typer.BadParameter: no task.
        ConfigError: a setting cannot be.
        DataError: there is no such data.
    """
    options = asked.options
    if "--task" not in options:
        raise typer.BadParameter("which task? `forq ls tasks` lists them", param_hint="--task")
    lora = [f"lora.{name[2:]}={json.dumps(options[name])}" for name in _LORA if name in options]
    move = [f"{name[2:]}={options[name]}" for name in ("--move", "--blocks") if name in options]
    recipe = options.get("--recipe")
    config = complete(
        recipe,
        [*move, *lora, *asked.sets],
        kind="causal" if recipe is not None else _kind(asked.checkpoint),
        steps=options.get("--steps"),
        forwards=options.get("--forwards"),
        eval_every=options.get("--eval-every"),
        checkpoint=asked.checkpoint,
        task=TaskConfig(
            name=options["--task"],
            data=given.data_path(asked.data, options["--task"]),
            reward=options.get("--reward"),
            tokens_per_probe=options.get("--tokens-per-probe"),
            micro_batch_tokens=options.get("--micro-batch-tokens"),
        ),
        seed=options.get("--seed", 0),
        device=asked.device or "auto",
        kernel=asked.kernel or "auto",
        activations=options.get("--activations", "float"),
        profile=None if asked.profile is None else str(asked.profile.resolve()),
        adapter=None if asked.adapter is None else str(asked.adapter.resolve()),
        watch=_watch.settings(asked.watch, asked.watch_limit),
    )
    if lora and "lora" not in config.method.kinds:
        raise ConfigError(f"--{lora[0][5:].partition('=')[0]} is of adapters, which do not move; add --move lora")
    return config


def _kind(checkpoint: str) -> Kind:
    """The kind of a checkpoint's model; of one that cannot be opened, loading will say why."""
    try:
        return kind_of(Checkpoint.open(checkpoint).contents)
    except ForqError:
        return "causal"


def settings(out: Path, asked: Asked) -> RunConfig:
    """The settings of the run in a folder, its checkpoint and data where the command line finds them.

    Raises:
        JournalError: the run's journal cannot be read.
        ConfigError: the command line names a setting that the run does not have; each is named with both values.
    """
    run = with_old_meanings(configs.read(out / "config.toml"), journal.read(out / "journal.jsonl").header)
    found = _require(out, run, asked, profile=asked.profile)
    data = run.task.data if asked.data is None else given.data_path(asked.data, run.task.name)
    placed = {
        "checkpoint": asked.checkpoint,
        "task": run.task.model_copy(update={"data": data}),
        "device": run.device if asked.device in (None, "auto") else asked.device,
        "adapter": run.adapter if asked.adapter is None else str(asked.adapter.resolve()),
        "kernel": run.kernel if asked.kernel in (None, "auto") else asked.kernel,
        "watch": agreement.watches_moved_to(run, found),
    }
    return run.model_copy(update=placed)


def of_rank(out: Path, run: RunConfig, asked: Asked) -> RunConfig:
    """The settings of a run that another rank leads, with what this rank's command line says of its own machine.

    Raises:
        ConfigError: the command line names a setting that the run does not have; each is named with both values.
        DataError: the data is not on this machine.
    """
    _require(out, run, asked, profile=None)
    placed = {
        "checkpoint": asked.checkpoint,
        "task": run.task.model_copy(update={"data": _data_here(run, asked)}),
        "device": asked.device or "auto",
        "kernel": asked.kernel or "auto",
        "threads": torch.get_num_threads(),
        "adapter": _here(asked.adapter, run.adapter),
        "profile": _here(asked.profile, run.profile),
    }
    return run.model_copy(update=placed)


def _data_here(run: RunConfig, asked: Asked) -> str:
    """The data that the command line names, else the run's own path if this machine has it, else the default."""
    own = run.task.data
    named = own if own.startswith("hf:") or (own and Path(own).exists()) else None
    return given.data_path(named if asked.data is None else asked.data, run.task.name)


def _here(named: Path | None, run: str | None) -> str | None:
    """A path that the command line names, else the run's own if this machine has it."""
    if named is not None:
        return str(named.resolve())
    return run if run is not None and Path(run).exists() else None


def _require(out: Path, run: RunConfig, asked: Asked, *, profile: Path | None) -> RunConfig:
    named = {_PLACES[name]: value for name, value in asked.options.items() if name in _PLACES}
    if "--forwards" in asked.options:
        named["steps"] = steps_within(run.method, asked.options["--forwards"])
    watch = _watch.settings(asked.watch, asked.watch_limit, run.watch)
    named["watch"] = {name: settings.model_dump() for name, settings in watch.items()}
    found = agreement.changed(run, named, asked.sets)
    found = found.model_copy(update={"method": with_settled(found.method, run.method)})
    names = {place: name for name, place in _PLACES.items()} | {"profile": "--profile"}
    agreement.require(out, run, found, names=names, profile=profile)
    return found


def result(out: Path, config: RunConfig) -> Result | None:
    """The result of a finished run; None where something is left to do, or to check by loading the model.

    The data is read again: rows that were changed in their files are refused like those of a run that goes on.
    Pictures are not, and :func:`finished_line` says so.

    Args:
        config: from :func:`settings`.

    Raises:
        DataError: the data cannot be read.
    """
    run, past = configs.read(out / "config.toml"), journal.read(out / "journal.jsonl")
    if not past.lines or past.lines[-1].kind != "saved":
        return None
    places = [(one.task.data, one.device, one.kernel, one.adapter) for one in (config, run)]
    same = places[0] == places[1]
    base = Checkpoint.open(config.checkpoint)
    if not same or base.digest() != past.header.get("base") or not _same_rows(config, base, past.header):
        return None
    try:
        found = json.loads((out / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    saved = [out / name for name in ("checkpoint", "adapter") if found.get(name) is not None]
    return found if saved and all(folder.is_dir() for folder in saved) else None


def finished_line(out: Path, config: RunConfig) -> str:
    """What is said of a run whose :func:`result` is shown again."""
    unread = _encoded(Checkpoint.open(config.checkpoint))
    return f"{out}: this run is finished" + ("; its pictures were not read again" if unread else "")


def _same_rows(config: RunConfig, base: Checkpoint, header: Mapping[str, Any]) -> bool:
    """Whether the run's data still has the rows that it was begun with; of pictures this is taken for granted."""
    if _encoded(base):
        return True
    return open_task(config.task, base, config.seed).digest == (header.get("task") or {}).get("digest")


def _encoded(base: Checkpoint) -> bool:
    """Whether only the loaded model can read the data, which takes long: a pipeline encodes pictures."""
    return kind_of(base.contents) == "diffusion"
