"""The order of a data set's classes beside rows that were in memory: JSON lines hold names, and no order of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.rows.json_rows import parsed

FILE = ".classes.json"
"""A hidden file, which no reader takes for rows."""

Names = Mapping[str, tuple[str, ...]]
"""Names of the labels that numbers stand for, by field."""


def write(folder: Path, classes: Mapping[Split, Names]) -> None:
    """Write the names of each split; without any the folder has no file."""
    (folder / FILE).unlink(missing_ok=True)
    known = {split: {field: list(found) for field, found in names.items()} for split, names in classes.items() if names}
    if known:
        new = folder / f"{FILE}.new"
        new.write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")
        new.replace(folder / FILE)


def read(folder: Path) -> dict[Split, dict[str, tuple[str, ...]]]:
    """The names of each split; empty for a folder without the file.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        known: Any = parsed(path.read_text(encoding="utf-8"))
        return {split: {field: tuple(found) for field, found in names.items()} for split, names in known.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: expected the classes of the rows beside it, found a damaged file: {error}") from error
