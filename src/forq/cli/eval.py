"""forq eval: score a checkpoint on a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from forq.cli import _arguments as given

if TYPE_CHECKING:
    from torch import nn

    from forq.tasks.kinds.features import Distance, Judge

DISTANCE = "feature distance"
BEFORE = f"{DISTANCE} before"


def evaluate(
    checkpoint: given.Tuned,
    task: Annotated[
        str | None, typer.Option(help="Task to score; `forq ls tasks` lists them. Default: the run's.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="File or folder with the task's data; also looked for inside $FORQ_DATA. Default: the run's, of which "
            "the rows are scored that it held out."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Rows to score: test, validation, or all, which is every row of data that names no splits. Default: "
            "all rows of such data if it is new to a run, else test."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of tasks that draw their rows. Default: the run's, or 0 for a checkpoint.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of the task, such as task.max_length=64. Default: the run's options."),
    ] = None,
    resolution: Annotated[
        int | None,
        typer.Option(
            help="Side of the pictures of text-to-image, in pixels. Default: the run's, or 512 for a checkpoint."
        ),
    ] = None,
    reward: given.Reward = None,
    micro_batch_tokens: given.MicroBatch = None,
    adapter: given.Adapter = None,
    device: given.Device = "auto",
    kernel: given.Kernel = "auto",
    activations: given.Activations = "float",
    as_json: given.Json = False,
) -> None:
    """Score a checkpoint, or what a run saved, on a task's test rows; on data that a run has not seen, on all rows."""
    from forq.cli import _screen
    from forq.cli._finished import finished
    from forq.errors import ConfigError
    from forq.models.load import load
    from forq.runs.config import task_config
    from forq.runs.facts import begun, of_run
    from forq.runs.open_task import may_be_whole, open_task
    from forq.runs.own_rows import changed, is_own, unlimited
    from forq.tasks import Compares, Split, account

    if split not in (None, "test", "validation", "all"):
        raise ConfigError(f"--split: expected test, validation or all, found {split!r}")
    part: Split = "validation" if split == "validation" else "test"
    if resolution is not None:
        sets = [*(sets or []), f"task.resolution={resolution}"]
    run, tuned = finished(checkpoint), begun(checkpoint)
    if task is None:
        if tuned is None:
            raise typer.BadParameter("which task? `forq ls tasks` lists them", param_hint="--task")
        task = tuned.task.name
    if data is None and tuned is not None:
        data = tuned.own_data(task)
    asked = task_config(
        task, given.data_path(data, task), sets or [], reward=reward, micro_batch_tokens=micro_batch_tokens
    )
    may_be = may_be_whole(task)
    if split == "all" and not may_be:
        raise ConfigError(f"--split: {task} has no 'all': expected test or validation")
    settings, described = of_run(tuned, asked)
    how: Any = {"kernel": kernel, "activations": activations}
    where, factors = (checkpoint, adapter) if run is None else (run.saved, adapter or run.adapter)
    model = load(where, device, adapter=factors, **how)
    _screen.print_notes(model)
    if seed is None:
        seed = 0 if tuned is None else tuned.seed
    own = tuned is not None and may_be and split in (None, "all") and is_own(tuned, settings.data, model)
    whole = may_be and (split == "all" or (split is None and tuned is not None and not own))
    if whole:
        settings = unlimited(asked, settings)
    opened = open_task(settings, model, seed, described, whole=whole)
    if split == "all" and "train" in account(opened).splits:
        raise ConfigError(f"--split all: expected data that names no splits, but {settings.data} does; name test")
    rows = _screen.print_rows(opened, model.checkpoint, settings, part)
    read = rows.read(part) if part in rows.used else None
    if tuned is not None and not whole and seed == tuned.seed and changed(tuned, settings, opened):
        _screen.err.print(
            f"warning: {settings.data} was changed after the run: rows that are scored may have been trained on",
            style="yellow",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    if own and whole:
        _screen.err.print("note: the run was trained on most of these rows", highlight=False)
    elif may_be and tuned is None and split is None and part in account(opened).drawn:
        _screen.err.print(
            f"note: of {read:,} rows those are scored that training on them would hold out; --split all scores all",
            highlight=False,
            soft_wrap=True,
        )
    judge = opened.judge(part) if isinstance(opened, Compares) else None
    if judge is not None and run is not None:
        run.require_base()
    score = opened.evaluate(model, part)
    distances: dict[str, Distance] = {}
    if judge is not None:
        distances[DISTANCE] = _drawn(judge, model, "drawing")
        if run is not None:
            del model
            distances[BEFORE] = _drawn(judge, load(run.base, device, adapter=run.start, **how), "drawing, before")
    if as_json:
        body = {"checkpoint": checkpoint, "task": task, "split": split or part, "rows": score.rows, **score.numbers()}
        body |= {"data": rows.plain()}
        for name, distance in distances.items():
            body |= {name: distance.value, f"{name} error": distance.error}
        if judge is not None:
            body |= {"drawn": len(judge.captions), "held_out": len(judge.held_out)}
        _screen.data(body)
    else:
        numbers = ", ".join(f"{name} {_screen.number(name, value)}" for name, value in score.numbers().items())
        of = f" of {read}" if rows.left.get(part) else ""
        _screen.out.print(f"{task} {split or part}: {numbers}, {score.rows}{of} rows", highlight=False)
        if judge is not None:
            shown = ", ".join(
                f"{name} {distance.value:.4g} ± {distance.error:.2g}" for name, distance in distances.items()
            )
            counts = f"{len(judge.captions)} pictures drawn, {len(judge.held_out)} held out"
            _screen.out.print(f"{shown}; {counts}", highlight=False)


def _drawn(judge: Judge, model: nn.Module, says: str) -> Distance:
    """The distance of what a model draws, with a progress bar on stderr."""
    from rich.progress import Progress

    from forq.cli import _screen

    with Progress(console=_screen.err, transient=True) as bar:
        shown = bar.add_task(says, total=len(judge.captions))
        return judge.distance(model, lambda drawn: bar.advance(shown, drawn))
