"""What a user may have meant by the name of a checkpoint that does not exist."""

from __future__ import annotations

import difflib
from pathlib import Path

from forq.checkpoints.installed import KNOWN, installed
from forq.plugins import registry

NAMED = "a file, a folder, a model of `forq models`, or a hub id"
"""What the name of a checkpoint may be."""


def nearest_path(path: Path) -> str:
    """`` (did you mean 'run/checkpoint'?)`` where a file or folder beside a missing one has nearly its name."""
    try:
        close = difflib.get_close_matches(path.name, [file.name for file in path.parent.iterdir()], n=1)
    except OSError:
        return ""
    return f" (did you mean {str(path.parent / close[0])!r}?)" if close else ""


def nearest_name(name: str) -> str:
    """The same among the models of ``forq models``, installed or not, then among files and folders."""
    return registry.nearest(name, [*KNOWN, *(model.name for model in installed())]) or nearest_path(Path(name))
