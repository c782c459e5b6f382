"""forq inspect: what a checkpoint holds, what can move, what tuning it would take, and how it sees a row of data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from forq.cli import _arguments as given

if TYPE_CHECKING:
    from forq.checkpoints import Checkpoint


def inspect(
    checkpoint: given.Checkpoint,
    data: given.Data = None,
    task: Annotated[
        str | None, typer.Option(help="Task that reads the data; `forq ls tasks` lists them. Default: completion.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Number of training rows to show, with --data.", min=1)] = 2,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Option of the task, such as task.max_length=64.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of tasks that draw their rows, as in `forq tune`.")] = 0,
    as_json: given.Json = False,
) -> None:
    """Show the format, what can move, what a save looks like, and the memory and time it takes; loads no tensor.

    With --data, show rows instead: token by token, as the model will see them, with the learned tokens marked.
    """
    from forq.checkpoints import Checkpoint
    from forq.errors import ConfigError

    ckpt = Checkpoint.open(checkpoint)
    if data is None and task is None:
        if sets:
            raise ConfigError("--set changes how a task reads data: name a file or folder with --data")
        _summary(ckpt, as_json)
    else:
        _rows(ckpt, data, task or "completion", rows, sets or [], seed, as_json)


def _rows(ckpt: Checkpoint, data: str | None, task: str, count: int, sets: list[str], seed: int, as_json: bool) -> None:
    """Rows of a task's data as the model will see them."""
    from typing import Any

    from forq.cli import _rows, _screen
    from forq.runs.config import task_config
    from forq.runs.open_task import open_task

    settings = task_config(task, given.data_path(data, task), sets)
    # Every task that a checkpoint alone can open is one of rows.
    opened: Any = open_task(settings, ckpt, seed)
    account = _screen.print_rows(opened, ckpt, settings)
    if as_json:
        body: dict[str, Any] = {"path": str(ckpt.path), "task": task, "data": account.plain()}
        body |= {"reading": _screen.read_as(ckpt, opened.tokenizer), "rows": _rows.plain(opened, count)}
        _screen.data(body)
    else:
        _rows.show(opened, count)


def _reading(ckpt: Checkpoint) -> list[str]:
    """How the checkpoint's texts are read; nothing where it has no tokenizer, or one that cannot be used."""
    from forq.cli import _screen
    from forq.errors import ForqError
    from forq.models.tokenizer import open_tokenizer

    try:
        return _screen.read_as(ckpt, open_tokenizer(ckpt))
    except ForqError:  # what a checkpoint holds is shown all the same
        return []


def _summary(ckpt: Checkpoint, as_json: bool) -> None:
    """What the checkpoint holds, and what tuning it takes."""
    from forq.checkpoints.containers.onnx.images import reads_images
    from forq.cli import _screen
    from forq.inspection.memory import summary
    from forq.inspection.pace import TOKENS, seconds_a_forward

    report = summary(ckpt)
    forward = seconds_a_forward(ckpt)
    reading = _reading(ckpt)
    if as_json:
        _screen.data(
            {
                "path": str(ckpt.path),
                "reading": reading,
                **asdict(report),
                "seconds_a_forward": forward,
                "tokens": TOKENS,
            }
        )
        return
    widths = ", ".join(map(str, report.widths))
    rows = "one scale a matrix" if report.scales == report.layers else "one scale a row"
    group = rows if report.group_size == -1 else f"group {report.group_size}"
    how = f"{report.format}, {widths} bits, {group}" if report.bits else "float"
    _screen.out.print(
        f"{ckpt.path}\n{report.model_type}: {report.parameters:,} parameters, {report.quantized:,} of them in "
        f"{report.layers} quantized layers\n{how}, {_screen.size(report.file_bytes)} of tensors",
        highlight=False,
        soft_wrap=True,
    )
    for line in reading:
        _screen.out.print(line, highlight=False, soft_wrap=True, markup=False)
    _screen.table("can move", ["kind", "coordinates"], [[kind, f"{n:,}"] for kind, n in report.moves.items()])
    _screen.table(
        "memory to tune it, without activations",
        ["method", "at least", "made up of"],
        [[estimate.method, _screen.size(estimate.memory_bytes), estimate.made_of] for estimate in report.estimates],
    )
    if report.peak_bytes is not None:
        _screen.out.print(
            f"a run on a CPU: about {_screen.size(report.peak_bytes)} at its peak, with Python, its libraries and the "
            f"activations of {TOKENS:,} tokens",
            highlight=False,
            soft_wrap=True,
        )
    if ckpt.graph is None or not reads_images(ckpt.graph):
        _screen.out.print(
            f"time on this CPU: a forward pass of {TOKENS:,} tokens takes at least {forward:.2g} s, a step of nine "
            f"forward passes {9 * forward:.2g} s (matrix products only)",
            highlight=False,
            soft_wrap=True,
        )
    for sentence in report.unlike:
        _screen.out.print(sentence, highlight=False, soft_wrap=True)
    if not report.layers and ckpt.graph is None:
        _screen.out.print(
            "nothing is quantized: forq quantize writes a quantized checkpoint; forq tune --quantize-on-load makes one "
            "for a run",
            highlight=False,
            soft_wrap=True,
        )
    if report.exported:
        _screen.out.print(f"a save is {report.exported}", highlight=False, soft_wrap=True)
