"""Arguments several commands share, and how they are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from forq.errors import ConfigError, DataError
from forq.plugins import registry


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
        raise ConfigError(f"{out} is in the way: {way_out}")


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
    str, typer.Option(help="float; or int8, which rounds the inputs of 8-bit layers that have one scale per row.")
]
Kernel = Annotated[
    str,
    typer.Option(
        help="Kernel of the quantized layers: auto (the fastest that fits), reference, native, ort or triton."
    ),
]


def data_path(data: str | None, task: str) -> str:
    """The data a user means: the path as given, or the same inside ``$FORQ_DATA``; by default the task's name there.

    Raises:
        ConfigError: there is no such task.
        DataError: there is nothing of that name.
    """
    known = [registry.shown("tasks", name) for name in registry.names("tasks")]
    if task.replace("_", "-") not in known:
        raise ConfigError(f"no task is called {task!r}{registry.nearest(task, known)}; known: {', '.join(known)}")
    if data is not None and data.startswith("hf:"):  # a data set of the hub, by its id
        return data
    home = os.environ.get("FORQ_DATA")
    wanted = task if data is None else data
    places = ([] if data is None else [path(wanted)]) + ([path(home) / wanted] if home else [])
    for place in places:
        if place.exists():
            return str(place.resolve())
    looked = " or ".join(dict.fromkeys(str(place) for place in places)) or "no --data, and $FORQ_DATA is not set"
    raise DataError(f"no data for task {task!r}: looked at {looked}; name a file or folder with --data")
