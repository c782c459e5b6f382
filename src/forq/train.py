"""From settings to a finished run: load the checkpoint, open the data, train, save."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from forq import config as configs
from forq import registry
from forq.config import RunConfig, TaskConfig
from forq.core import ConfigError
from forq.models.load import load
from forq.runs import Run
from forq.tasks import Task


def open_task(config: TaskConfig, model: nn.Module, seed: int) -> Task:
    """Open a task's data with the tokenizer that lies beside the model's checkpoint.

    Raises:
        ConfigError: no such task, or an option it does not know (the nearest is named).
        DataError: the data cannot be used.
    """
    from transformers import AutoTokenizer

    lm: Any = model
    opener = registry.get("tasks", config.name).open
    known = [p.name for p in inspect.signature(opener).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known.remove("seed")
    for option in config.options:
        if option not in known:
            raise ConfigError(
                f"task {config.name!r} has no option {option!r}{registry.nearest(option, known)}; known: "
                f"{', '.join(known)}"
            )
    try:
        tokenizer = AutoTokenizer.from_pretrained(lm.checkpoint.path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{lm.checkpoint.path}: no tokenizer that transformers can load: {error}") from error
    task: Task = opener(Path(config.data), tokenizer, seed=seed, **config.options)
    return task


def settings(
    recipe: str, sets: Iterable[str] = (), *, steps: int, eval_every: int | None = None, **values: Any
) -> RunConfig:
    """A run's settings with the defaults filled in: twenty scores a run, as many threads as torch takes."""
    every = max(1, steps // 20) if eval_every is None else eval_every
    threads = torch.get_num_threads()
    return configs.resolve(recipe, list(sets), steps=steps, eval_every=every, threads=threads, **values)


def tune(
    model: nn.Module | str | Path,
    task: str | Task,
    data: str | Path = "",
    *,
    recipe: str = "qzo",
    steps: int = 2000,
    out: str | Path | None = None,
    seed: int = 0,
    eval_every: int | None = None,
    sets: Iterable[str] = (),
) -> Run:
    """Tune a quantized model with forward passes only, and save the best checkpoint.

    To see it happen, or to stop it by a rule of one's own, loop over ``Run.begin(…).events()`` instead.

    Args:
        model: from :func:`forq.load`, or where to load it from.
        task: a task's name, or an open task.
        data: file or folder of the task's data; not used with an open task.
        recipe: which method; ``forq ls recipes`` names them.
        steps: training steps.
        out: the run's folder, new or empty; by default a new temporary one.
        sets: changes to the recipe, as ``"rule.lr=1e-3"``, and options of the task, as ``"task.max_length=64"``.

    Returns:
        The finished run: ``run.journal``, ``run.best``, ``run.folder / "checkpoint"``, ``run.save(folder)``.

    Example:
        >>> run = forq.tune("opt-125m-gptq", "text", "notes.txt", steps=500)    # doctest: +SKIP
    """
    loaded: Any = model if isinstance(model, nn.Module) else load(model)
    named = task if isinstance(task, str) else str(task.describe()["task"])
    config = settings(
        recipe,
        sets,
        steps=steps,
        eval_every=eval_every,
        checkpoint=str(loaded.checkpoint.path),
        task=TaskConfig(name=named, data=str(data)),
        seed=seed,
        device=loaded.device.type,
    )
    opened = open_task(config.task, loaded, seed) if isinstance(task, str) else task
    folder = Path(tempfile.mkdtemp(prefix="forq-")) if out is None else Path(out)
    run = Run.begin(folder, config, loaded, opened)
    for _ in run.events():
        pass
    run.finish()
    return run
