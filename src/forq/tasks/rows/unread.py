"""Files beside the data that forq does not read: those that could be rows are refused, others are named."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from forq.errors import DataError

PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tar", ".tgz")
"""Endings of compressed files."""

_TABLES = (".parquet", ".arrow", ".feather", ".orc", ".ndjson", ".xlsx", ".xls", ".ods", ".avro")
_TEXTS = (".text", ".rst", ".html", ".htm", ".tex", ".rtf", ".pdf", ".docx", ".doc", ".odt", ".epub")
_ABOUT = ("readme", "license", "licence", "notice", "changelog", "citation", "dataset_infos", "makefile")
_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp")
_NAMED = 8


def about(path: Path) -> bool:
    """Whether a file is about the data, by its name."""
    return path.stem.casefold() in _ABOUT


def is_rows(path: Path) -> bool:
    """Whether a file may hold rows that forq does not read: a packed file, or a table of another kind."""
    return path.suffix.lower() in (*PACKED, *_TABLES) and path.is_file()


def is_text(path: Path) -> bool:
    """Whether a file may hold text that forq does not read: a packed file, or a text of another kind."""
    return path.suffix.lower() in (*PACKED, *_TEXTS, ".parquet") and path.is_file() and not about(path)


def require_read(unread: Iterable[Path], read: Collection[Path]) -> None:
    """Refuse a file that may be data and is not read.

    A packed file beside what it unpacks to is none.

    Args:
        unread: files that may be data.
        read: the files that are read.

    Raises:
        DataError: there is one; the message names it.
    """
    for path in unread:
        if path.suffix.lower() in PACKED and path.with_suffix("") in read:
            continue
        example = min(read)
        raise DataError(
            f"{path}: expected one kind of file, as {example.name} is, found {path.suffix}, which is not read; "
            f"{advice(path)}, or move it elsewhere if it is no data"
        )


def advice(path: Path) -> str:
    """What to do with a file that is not read."""
    if path.suffix.lower() in PACKED:
        return "unpack it first"
    if path.suffix.lower() in (".parquet", ".arrow"):
        return f"convert it, or give hf:{path.parent}, which the datasets library reads"
    return "convert it first"


def names(paths: Iterable[Path], folder: Path) -> tuple[str, ...]:
    """The names of files that nothing reads, from the folder; of many the first ones, and their number.

    Images and texts about the data are left out.
    """
    rest = sorted(path for path in paths if not about(path) and path.suffix.lower() not in _IMAGES)
    found = [path.relative_to(folder).as_posix() for path in rest]
    more = [f"{len(found) - _NAMED:,} more files"] if len(found) > _NAMED else []
    return (*found[:_NAMED], *more)
