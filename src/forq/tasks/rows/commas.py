"""Tables in another spelling than their ending says: columns without commas in CSV, fields in quotes in TSV."""

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


def looks_quoted(value: str) -> bool:
    """Whether a writer of CSV put a field in quotes: all of it, with each quote inside doubled.

    Example:
        >>> looks_quoted('"He said ""hello"" to me"'), looks_quoted('"a quotation"'), looks_quoted('""odd" ones"')
        (True, False, False)
    """
    inner = value[1:-1]
    return len(value) > 4 and value[0] == value[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")
