"""The tables of a folder and the split of each: by their names, or by the sub-folder they lie in."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.rows.split_names import NAMES, require_single, split_of
from forq.tasks.rows.unread import advice, is_rows, names, require_read

_NO_DATA = ("journal.jsonl", "config.json", "adapter_config.json")
"""Files by which a run, a model and an adapter are known; what lies beside them is no data."""


class Tables(NamedTuple):
    """The tables of a folder with their splits, and the names of files in it that are not read."""

    files: list[tuple[Path, Split]]
    unused: tuple[str, ...] = ()


def by_split(folder: Path, suffixes: Collection[str], aside: Path | None = None) -> Tables:
    """The tables of a folder, in the order of their names; then those of its sub-folders.

    If a name names a split, every other table and sub-folder has to name one too. Otherwise all tables
    are training rows. In a sub-folder, tables that name no split are parts of the sub-folder's. Hidden
    files and folders, runs and models are passed over.

    Args:
        suffixes: the endings of tables, in small letters.
        aside: a file in the folder, or below, that has no rows.

    Raises:
        DataError: there are no tables, it is not clear which split a table belongs to, or a file beside them may hold
            rows and is not read (:mod:`forq.tasks.rows.unread`).
    """

    def is_table(path: Path) -> bool:
        known = path.suffix.lower() in suffixes and path.is_file()
        return known and (aside is None or path.resolve() != aside.resolve())

    tables, inner = _within(folder, is_table)
    if not tables and not inner:
        other = next((path for path in sorted(folder.iterdir()) if is_rows(path)), None)
        hint = "" if other is None else f", but {other.name}: {advice(other)}"
        raise DataError(f"{folder}: found no {' or '.join(suffixes)} file in it{hint}")
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
    found += [(file, named[path] or "train") for path in inner for file in _of_folder(path, is_table)]
    files = {file for file, _ in found}
    require_read(_rows_in(folder), files)
    here = (path for path in _visible(folder) if path.is_file() and path not in files)
    return Tables(found, names((path for path in here if aside is None or path.resolve() != aside.resolve()), folder))


def _of_folder(folder: Path, is_table: Callable[[Path], bool]) -> list[Path]:
    """The tables of a split's sub-folder."""
    tables, inner = _within(folder, is_table)
    if inner:
        raise DataError(f"{inner[0]}: expected tables in {folder.name} itself, found deeper ones; move them up")
    own = split_of(folder)
    if other := next((file for file in tables if split_of(file) not in (own, None)), None):
        raise DataError(f"{other}: expected {own} data in {folder.name}, found {split_of(other)} in a name; move it")
    return tables


def _within(folder: Path, is_table: Callable[[Path], bool]) -> tuple[list[Path], list[Path]]:
    """The tables of a folder, and its sub-folders that have tables, at any depth."""
    visible = _visible(folder)
    return [path for path in visible if is_table(path)], [path for path in visible if _has_tables(path, is_table)]


def _rows_in(folder: Path) -> list[Path]:
    """Files of rows that are not read, in a folder and in its sub-folders of data."""
    visible = _visible(folder)
    inner = [path for path in visible if _has_tables(path, is_rows)]
    return [path for path in visible if is_rows(path)] + [file for path in inner for file in _rows_in(path)]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _has_tables(folder: Path, is_table: Callable[[Path], bool]) -> bool:
    """Whether a path is a folder of data: one that is called as a split is, whatever else lies in it."""
    if not folder.is_dir():
        return False
    if folder.name.casefold() not in NAMES and any((folder / name).is_file() for name in _NO_DATA):
        return False
    inner = [path for path in folder.iterdir() if not path.name.startswith(".")]
    # A link could lead back to the folder it is in.
    return any(is_table(path) or (not path.is_symlink() and _has_tables(path, is_table)) for path in inner)
