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
    activations: given.Activations = None,
    as_json: given.Json = False,
) -> None:
    """Score a checkpoint or a run on the test rows; a run on new data is scored on all rows."""
    from forq.checkpoints import Checkpoint
    from forq.cli import _screen
    from forq.cli._finished import finished
    from forq.models.load import load
    from forq.report.words import counted
    from forq.runs.config import task_config
    from forq.runs.fixed_options import activations_of, source_run
    from forq.runs.scored_rows import named_split, scored_rows
    from forq.tasks import Compares

    if resolution is not None:
        sets = [*(sets or []), f"task.resolution={resolution}"]
    run, tuned = finished(checkpoint), source_run(checkpoint)
    if task is None:
        if tuned is None:
            Checkpoint.open(checkpoint)  # what is neither a run nor a checkpoint is refused first
            raise typer.BadParameter("which task? `forq ls tasks` lists them", param_hint="--task")
        task = tuned.task.name
    named = named_split(split, task)
    if data is None and tuned is not None:
        data = tuned.own_data(task)
    asked = task_config(
        task, given.data_path(data, task), sets or [], reward=reward, micro_batch_tokens=micro_batch_tokens
    )
    how: Any = {"kernel": kernel, "activations": activations_of(tuned, activations, device, kernel)}
    where, factors = (checkpoint, adapter) if run is None else (run.saved, adapter or run.adapter)
    model = load(where, device, adapter=factors, **how)
    _screen.print_notes(model)
    chosen = scored_rows(model, tuned, asked, named, seed)
    opened, part = chosen.task, chosen.part
    rows = _screen.print_rows(opened, model.checkpoint, chosen.settings, part)
    _screen.print_remarks(chosen.warning, chosen.note)
    _screen.print_activations(tuned, how["activations"])
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
        body = {"checkpoint": checkpoint, "task": task, "split": chosen.named, "rows": score.rows, **score.numbers()}
        body |= {"activations": how["activations"]}
        body |= {"data": rows.plain()}
        for name, distance in distances.items():
            body |= {name: distance.value, f"{name} error": distance.error}
        if judge is not None:
            body |= {"drawn": len(judge.captions), "held_out": len(judge.held_out)}
        _screen.data(body)
    else:
        numbers = ", ".join(f"{name} {_screen.number(name, value)}" for name, value in score.numbers().items())
        count = f"{score.rows} of {rows.read(part)} rows" if rows.left.get(part) else counted(score.rows, "row")
        _screen.out.print(f"{task} {chosen.named}: {numbers}, {count}", highlight=False)
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
