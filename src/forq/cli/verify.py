"""forq verify: is this journal whole, and does it rebuild what it claims?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forq.cli import _arguments as given

if TYPE_CHECKING:
    from forq.runs.replay import Verdict

FOLDERS = ("checkpoint", "adapter")
"""Where a run keeps what it saved."""


def verify(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or its journal.jsonl alone.", parser=given.path)
    ],
    base: Annotated[
        str | None,
        typer.Option(
            help="The checkpoint the run began from. With it, every digest is rebuilt.",
            parser=given.source,
            metavar="CHECKPOINT",
        ),
    ] = None,
    adapter: given.Start = None,
    as_json: given.Json = False,
) -> None:
    """Check the journal and the saved files; with --base, also replay every step."""
    from forq.cli import _screen
    from forq.errors import JournalError
    from forq.runs.replay import verify as check

    verdict = check(run, base, adapter)
    if as_json:
        _screen.data(asdict(verdict))
    else:
        _screen.out.print(_journal(verdict), highlight=False, soft_wrap=True)
        _screen.out.print(
            {
                None: "digests not rebuilt: give the checkpoint that the run began from with --base",
                True: "every digest rebuilt from the base",
            }[verdict.rebuilt],
            highlight=False,
            soft_wrap=True,
        )
        if base is None and verdict.finished:
            _screen.out.print(_compared(run, verdict), highlight=False, soft_wrap=True)
        if verdict.checkpoint is not None:
            _screen.out.print(
                f"checkpoint/ holds exactly what the journal rebuilds: {'yes' if verdict.checkpoint else 'NO'}"
            )
        if verdict.adapter is not None:
            _screen.out.print(f"adapter/ holds exactly what the journal rebuilds: {'yes' if verdict.adapter else 'NO'}")
    for folder, same in zip(FOLDERS, (verdict.checkpoint, verdict.adapter), strict=True):
        if same is False:
            raise JournalError(f"{run / folder} is not what the journal rebuilds: it was changed after the run")
    if verdict.saved is False:
        held = " and ".join(folder for folder in FOLDERS if (run / folder).is_dir())
        raise JournalError(
            f"{run}: expected in {held} the tensors whose digest the journal holds, found others: it was changed after "
            "the run; forq replay with --base makes it again"
        )


def _journal(verdict: Verdict) -> str:
    """Up to where the journal is valid, and whether the run is finished."""
    from forq.report.words import counted

    ended = "the run is finished" if verdict.finished else "the run is not finished; --resume continues it"
    forwards = counted(verdict.forwards, "forward pass", "forward passes")
    if verdict.torn_bytes:
        last = f"its last line is incomplete ({counted(verdict.torn_bytes, 'byte')})"
        return f"journal valid up to step {verdict.steps:,} ({forwards}); {last}; {ended}"
    return f"journal valid: {counted(verdict.steps, 'step')}, {forwards}; {ended}"


def _compared(run: Path, verdict: Verdict) -> str:
    """What was compared without a base."""
    if not run.is_dir():
        return "checkpoint/ not compared: only the journal was named; name the run's folder"
    held = " and ".join(f"{folder}/" for folder in FOLDERS if (run / folder).is_dir())
    if not held:
        return "checkpoint/ not compared: there is none beside the journal"
    if verdict.saved is None:
        return f"{held} not compared: give --base"
    moved = "yes; what did not move is not compared: give --base" if verdict.saved else "NO"
    return f"{held}: the moved tensors are those that the journal names: {moved}"
