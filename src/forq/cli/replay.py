"""forq replay: rebuild a tuned checkpoint from its journal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forq.cli import _arguments as given


def replay(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or its journal.jsonl alone.", parser=given.path)
    ],
    base: Annotated[
        str, typer.Option(help="The checkpoint the run began from.", parser=given.source, metavar="CHECKPOINT")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write, new or empty.", parser=given.path, metavar="PATH")],
    step: Annotated[
        int | None, typer.Option(help="Training step to rebuild. Default: the step that the run saved.")
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="The run's profile.safetensors, if it is not beside the journal.", parser=given.path, metavar="PATH"
        ),
    ] = None,
    adapter: given.Start = None,
    as_json: given.Json = False,
) -> None:
    """Rebuild the tuned checkpoint of any step, bit for bit, without a single forward pass."""
    from forq.checkpoints import Checkpoint
    from forq.checkpoints.replace import check_destination
    from forq.cli import _screen
    from forq.runs.replay import replay as rebuild

    # Said now, not after the whole run was replayed.
    given.free(out, "choose another --out")
    check_destination(Checkpoint.open(base).path, out, overwrite=True)
    done = rebuild(run, base, out, step=step, profile=profile, adapter=adapter)
    if as_json:
        _screen.data({"step": done, "path": str(out)})
    else:
        _screen.out.print(
            f"{out}: the tuned model after step {done:,}, rebuilt from the journal; its digests match",
            highlight=False,
            soft_wrap=True,
        )
