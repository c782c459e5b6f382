"""Arguments several commands share, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forq.errors import ConfigError


def path(text: str | Path) -> Path:
    """A path a user typed, ``~`` being the home folder also where no shell has seen it (``--out=~/run``)."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # nobody of that name: what then is not found is the path as typed
        return Path(text)


def source(text: str) -> str:
    """A folder or a hub id, with the home folder in place of ``~``."""
    return str(path(text)) if text.startswith("~") else text


def free(out: Path, way_out: str) -> None:
    """Refuse a folder to make that is there already and holds something.

    Raises:
        ConfigError: it does; the message ends in ``way_out``.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already: {way_out}")


Checkpoint = Annotated[
    str,
    typer.Argument(
        help="A checkpoint: a file, a folder, a name that `forq models` lists, or a hub id.",
        parser=source,
        metavar="CHECKPOINT",
    ),
]
Tuned = Annotated[
    str,
    typer.Argument(
        help="A checkpoint: a file, a folder, a name that `forq models` lists, or a hub id. Or the folder of a "
        "finished run.",
        parser=source,
        metavar="CHECKPOINT|RUN",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="File or folder with the task's data; also looked for inside $FORQ_DATA. Default, with --task: the folder "
        "named like the task in $FORQ_DATA."
    ),
]
Reward = Annotated[
    str | None,
    typer.Option(
        help="Objective in place of the task's: accuracy, f1, exact_match, "
        "or your function as module:name or file.py:name, whose code is run."
    ),
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        help="Most tokens in one forward pass, padding included. Bounds memory; changes only the last bits of losses."
    ),
]
Adapter = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a LoRA adapter in PEFT's format, used with the checkpoint.", parser=path, metavar="PATH"
    ),
]
Start = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the adapter that the run began from, if it was begun with `forq tune --adapter`.",
        parser=path,
        metavar="PATH",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Activations = Annotated[
    str | None,
    typer.Option(
        help="float; bfloat16, which multiplies in bfloat16; or int8, which rounds the inputs of 8-bit layers that "
        "have one scale per row. Default: the run's, or float for a checkpoint."
    ),
]
Kernel = Annotated[
    str,
    typer.Option(
        help="Kernel of the quantized layers: auto (the fastest that fits), reference, native, ort or triton."
    ),
]


def data_path(data: str | None, task: str) -> str:
    """See :func:`forq.runs.data.located`."""
    from forq.runs.data import located

    return located(data if data is None or data.startswith("hf:") else str(path(data)), task)
