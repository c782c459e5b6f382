"""forq eval: score a checkpoint on a task."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from forq.cli import _arguments as given


def evaluate(
    checkpoint: given.Checkpoint,
    task: given.Task,
    data: given.Data = None,
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    seed: Annotated[int, typer.Option(help="Seed of the rows drawn, where a task draws them.")] = 0,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Option of the task, as task.max_length=64.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Of text-to-image: pixels of a side. Default: 512.")] = None,
    reward: given.Reward = None,
    micro_batch_tokens: given.MicroBatch = None,
    adapter: given.Adapter = None,
    device: given.Device = "auto",
    kernel: given.Kernel = "auto",
    activations: given.Activations = "float",
    as_json: given.Json = False,
) -> None:
    """Score a checkpoint, or what a run saved, on a task's test rows."""
    from forq.cli import _screen
    from forq.cli._finished import finished
    from forq.config import task_config
    from forq.core import ConfigError
    from forq.models.load import load
    from forq.train import open_task

    if split not in ("test", "validation"):
        raise ConfigError(f"--split: expected test or validation, found {split!r}")
    if resolution is not None:
        sets = [*(sets or []), f"task.resolution={resolution}"]
    settings = task_config(
        task, given.data_path(data, task), sets or [], reward=reward, micro_batch_tokens=micro_batch_tokens
    )
    how: Any = {"kernel": kernel, "activations": activations}
    run = finished(checkpoint)
    where, factors = (checkpoint, adapter) if run is None else (run.saved, adapter or run.adapter)
    model = load(where, device, adapter=factors, **how)
    _screen.told(model)
    opened = open_task(settings, model, seed)
    score = opened.evaluate(model, split)  # type: ignore[arg-type]
    if as_json:
        _screen.data({"checkpoint": checkpoint, "task": task, "split": split, "rows": score.rows, **score.numbers()})
    else:
        numbers = ", ".join(f"{name} {_screen.number(name, value)}" for name, value in score.numbers().items())
        _screen.out.print(f"{task} {split}: {numbers}, {score.rows} rows", highlight=False)
