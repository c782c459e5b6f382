"""The tables of a folder and the split of each: by their names, or by the sub-folder they lie in."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.rows.split_names import NAMES, require_single, split_of

_NO_DATA = ("journal.jsonl", "config.json", "adapter_config.json")
"""Files by which a run, a model and an adapter are known; what lies beside them is no data."""


def by_split(folder: Path, suffixes: Collection[str], aside: Path | None = None) -> list[tuple[Path, Split]]:
    """The tables of a folder, in the order of their names; then those of its sub-folders.

    If a name names a split, every other table and sub-folder has to name one too. Otherwise all tables
    are training rows. In a sub-folder, tables that name no split are parts of the sub-folder's. Hidden
    files and folders, runs and models are passed over.

    Args:
        suffixes: the endings of tables, in small letters.
        aside: a file that is no table of rows.

    Raises:
        DataError: there are no tables, or it is not clear which split a table belongs to.
    """
    tables = [file for file in _tables(folder, suffixes) if aside is None or file.resolve() != aside.resolve()]
    inner = [path for path in _visible(folder) if path.is_dir() and _has_tables(path, suffixes)]
    if not tables and not inner:
        raise DataError(f"{folder}: found no {' or '.join(suffixes)} file in it")
    named = {path: split_of(path) for path in (*tables, *inner)}
    for path in inner:
        if named[path] is None:
            raise DataError(
                f"{path}: expected a sub-folder with the name of a split, train, validation or test, found tables in "
                f"{path.name!r}; rename it, or move it elsewhere"
            )
    example = next((path for path, split in named.items() if split is not None), None)
    stray = next((path for path, split in named.items() if split is None), None)
    if example is not None and stray is not None:
        raise DataError(
            f"{stray}: expected the name of a split in it, since {example.name} has one, found none; rename it, to "
            f"train_{stray.name} for example, or move it elsewhere if it is no data"
        )
    for split in dict.fromkeys(split for split in named.values() if split is not None):
        require_single(split, [path for path, other in named.items() if other == split])
    found = [(file, named[file] or "train") for file in tables]
    return found + [(file, named[path] or "train") for path in inner for file in _of_folder(path, suffixes)]


def _of_folder(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The tables of a split's sub-folder."""
    if deeper := next((path for path in _visible(folder) if path.is_dir() and _has_tables(path, suffixes)), None):
        raise DataError(f"{deeper}: expected tables in {folder.name} itself, found deeper ones; move them up")
    tables, own = _tables(folder, suffixes), split_of(folder)
    if other := next((file for file in tables if split_of(file) not in (own, None)), None):
        raise DataError(f"{other}: expected {own} data in {folder.name}, found {split_of(other)} in a name; move it")
    return tables


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _tables(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return [path for path in _visible(folder) if path.suffix.lower() in suffixes and path.is_file()]


def _has_tables(folder: Path, suffixes: Collection[str]) -> bool:
    if folder.name.casefold() not in NAMES and any((folder / name).is_file() for name in _NO_DATA):
        return False
    if _tables(folder, suffixes):
        return True
    # A link could lead back to the folder it is in.
    deeper = (path for path in _visible(folder) if path.is_dir() and not path.is_symlink())
    return any(_has_tables(path, suffixes) for path in deeper)
