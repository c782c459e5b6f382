"""What commands show: tables and progress, in one style."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from forq.tasks import shown as number

if TYPE_CHECKING:
    from forq.checkpoints import Checkpoint
    from forq.models.loaded import LoadedModel
    from forq.runs.config import TaskConfig
    from forq.runs.fixed_options import SourceRun
    from forq.tasks import Account, Task

__all__ = [
    "OTHER",
    "TAKEN",
    "data",
    "err",
    "number",
    "out",
    "print_activations",
    "print_notes",
    "print_remarks",
    "print_rows",
    "read_as",
    "size",
    "table",
]

out = Console()
err = Console(stderr=True)

TAKEN = "a run is there already: add --resume to continue it, or choose another --out"
"""Said of an --out that holds a run."""

OTHER = "expected a new or empty folder, found other files; choose another --out"
"""Said of an --out that holds something else."""


def data(body: object) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(body, indent=2, default=str) + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; numbers are right-aligned, words are not."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for index, column in enumerate(columns):
        made.add_column(
            column,
            justify="right" if all(row[index][:1] in "-+0123456789" for row in rows) else "left",
            overflow="fold",
        )
    for row in rows:
        made.add_row(*row)
    out.print(made)


def print_notes(model: LoadedModel) -> None:
    """What the owner of a model's format computes and forq does not, and an adapter that is left out, on stderr."""
    from forq.models.unlike import left_out

    alone = () if model.adapters else left_out(model.checkpoint, ": give it by --adapter")
    for sentence in (*model.unlike, *alone):
        err.print(f"note: {sentence}", highlight=False, soft_wrap=True)


def print_rows(
    task: Task, ckpt: Checkpoint, settings: TaskConfig, split: str | None = None, *, named: bool = True
) -> Account:
    """What became of a task's rows, what is wrong with them, and how its tokenizer reads texts, on stderr.

    Args:
        split: the one whose rows are looked at; None: all.
        named: whether the rows are of splits; rows to predict are of none.
    """
    from dataclasses import replace

    from forq.tasks import account
    from forq.tasks.kinds.completion import Completion

    rows = account(task) if split is None else account(task).only(split)
    rows = rows if named else replace(rows, named=False)
    if rows.line:
        err.print(rows.line, highlight=False, soft_wrap=True, markup=False)
    if (tokenizer := getattr(task, "tokenizer", None)) is not None:
        template = settings.options.get("template")
        line, *notes = read_as(ckpt, tokenizer, None if template is None else Path(str(template)))
        # Only tasks of this kind read conversations and end answers.
        for sentence in [line, *notes] if isinstance(task, Completion) else notes:
            err.print(sentence, highlight=False, soft_wrap=True, markup=False)
    for sentence in rows.warnings:
        err.print(f"warning: {sentence}", style="yellow", highlight=False, soft_wrap=True, markup=False)
    return rows


def print_remarks(warning: str | None, note: str | None) -> None:
    """What a user should know of the rows that are scored, on stderr."""
    if warning is not None:
        err.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True, markup=False)
    if note is not None:
        err.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)


def print_activations(run: SourceRun | None, used: str) -> None:
    """What a run computed in and a model is scored in, on stderr, if that is not float for both."""
    if run is not None and (run.activations, used) != ("float", "float"):
        err.print(f"note: the run computed in {run.activations}; this is computed in {used}", highlight=False)


def read_as(ckpt: Checkpoint, tokenizer: Any, template: Path | None = None) -> list[str]:
    """How a model's texts are read: a line, and where its files disagree a note on each difference."""
    from forq.models.tokenizer import reading

    found = reading(tokenizer, ckpt, template)
    return [found.line, *(f"note: {sentence}" for sentence in found.notes)]


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            return f"{count:.3g} {unit}" if abs(count) < 1000 else f"{count:,.0f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
