"""Tables whose columns are separated by another character than the comma: refused with what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forq.errors import DataError

_OTHERS = ((";", "';'", "save it with commas, or as .tsv"), ("\t", "tabs", "name it .tsv"))


def require_commas(rows: Sequence[tuple[int, list[str]]], file: Path) -> None:
    """Refuse a header that is one column with semicolons or tabs in it, which spreadsheets write in many countries.

    Args:
        rows: line number and values, read with commas; the first row is the header.

    Raises:
        DataError: it is such a header.
    """
    line, header = rows[0] if rows else (1, [])
    if len(header) != 1:
        return
    for mark, name, advice in _OTHERS:
        if mark in header[0]:
            raise DataError(
                f"{file}, line {line}: expected columns separated by commas, found {header[0]!r}; the header looks "
                f"separated by {name}: {advice}"
            )
