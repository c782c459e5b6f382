"""forq verify: is this journal whole, and does it rebuild what it claims?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from forq.cli import _arguments as given


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
    """Check every line of a journal, and with --base that it rebuilds every digest and the saved checkpoint."""
    from forq.cli import _screen
    from forq.errors import JournalError
    from forq.runs.replay import verify as check

    verdict = check(run, base, adapter)
    if as_json:
        _screen.data(asdict(verdict))
    else:
        _screen.out.print(f"journal whole: {verdict.steps} steps, {verdict.forwards} forward passes", highlight=False)
        if verdict.torn_bytes:
            _screen.out.print(f"a kill cut its last line ({verdict.torn_bytes} bytes): --resume goes on before it")
        _screen.out.print("finished and saved" if verdict.finished else "not finished: --resume goes on")
        _screen.out.print(
            {None: "digests not rebuilt: no --base", True: "every digest rebuilt from the base"}[verdict.rebuilt]
        )
        if verdict.checkpoint is not None:
            _screen.out.print(
                f"checkpoint/ holds exactly what the journal rebuilds: {'yes' if verdict.checkpoint else 'NO'}"
            )
        if verdict.adapter is not None:
            _screen.out.print(f"adapter/ holds exactly what the journal rebuilds: {'yes' if verdict.adapter else 'NO'}")
    if False in (verdict.checkpoint, verdict.adapter):
        raise JournalError(f"{run}/checkpoint is not what the journal rebuilds: it was changed after the run")
