"""A run's folder: whether a run may begin in it, and small files written whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from forq.coordinates.profile import FILE
from forq.errors import ConfigError
from forq.runs.data import FOLDER as ROWS
from forq.runs.lock import NAME as LOCK

BASE = "base"
"""Sub-folder of a run with its quantized base, if that was made from a float checkpoint.

Beside it, ``base.json`` is a note on that checkpoint.
"""


def vacant(folder: Path) -> bool:
    """Whether a run may begin here: the folder is new, empty, or from a run killed before its first journal line."""
    if not folder.is_dir():
        return not folder.exists()
    names = {path.name for path in folder.iterdir() if not path.match(f".{BASE}.*.partial")}
    path = folder / "journal.jsonl"
    torn = path.is_file() and b"\n" not in path.read_bytes()
    begun = {"state", "config.toml", "config.new", "journal.jsonl", BASE, f"{BASE}.json", ROWS, FILE, LOCK}
    return names <= begun and (torn or not path.exists())


def make(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"out: expected a place to write to, found {folder}: {error.strerror}; choose another"
        ) from error


def sweep(folder: Path, name: str) -> None:
    """Remove the leftovers of interrupted saves of ``folder / name``."""
    for pattern in (f".{name}.*.partial", f".{name}.*.old"):
        for left in folder.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


def put_json(path: Path, body: object) -> None:
    """Write a small JSON file whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    new.replace(path)
