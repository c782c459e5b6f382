"""Read rows with named fields from JSON lines, JSON, CSV, TSV, or a data set of ``datasets``.

A file is read completely or refused with an error that names the line. Rows, fields and duplicates
are never dropped silently.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.rows import class_file
from forq.tasks.rows.card import require_no_orders
from forq.tasks.rows.commas import looks_quoted, require_commas
from forq.tasks.rows.data_set import of_datasets
from forq.tasks.rows.json_rows import check_row, decoded, parsed, suspect
from forq.tasks.rows.record import Record, Table
from forq.tasks.rows.table_files import Tables, by_split
from forq.tasks.rows.unread import advice, is_rows
from forq.tasks.rows.utf8 import text_of

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
HUB = "hf:"


def read(data: str | Path, aside: Path | None = None) -> Table:
    """Read a data set.

    Args:
        data: a file; a folder of files or sub-folders that name splits (train, validation, test and their other
            names), or of training files (:mod:`forq.tasks.rows.table_files`); a folder written by
            ``datasets.save_to_disk``; ``hf:org/name``, a data set of the hub; or ``hf:`` and a folder
            that the datasets library can read (parquet). A data set's code is never run.
        aside: a file in the folder that has no rows: the labels' words.

    Raises:
        DataError: the data does not exist, has no training rows, has a file without rows or whose split
            is not clear, or has a row that cannot be read (file and line).
    """
    if str(data).startswith(HUB):
        return of_datasets(str(data).removeprefix(HUB), hub=True)
    path = Path(data)
    if path.is_dir() and any((path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
        return of_datasets(str(path), hub=False)
    rows: dict[Split, list[Record]] = {}
    state, quoted = hashlib.sha256(), 0
    files, unused = _files(path, aside)
    for file, split in files:
        content = content_of(file)
        state.update(content)
        found = records(content, file)
        rows.setdefault(split, []).extend(found)
        if file.suffix.lower() == ".tsv":
            quoted += sum(any(looks_quoted(str(value)) for value in record.fields.values()) for record in found)
    if not rows.get("train"):
        raise DataError(f"{data}: found no training rows")
    classes = class_file.read(path) if path.is_dir() else {}
    return Table(rows, state.hexdigest(), unused, classes, quoted)


def content_of(file: Path, expected: str = "") -> bytes:
    """The bytes of a file.

    Args:
        expected: the expected content of the folder, for the error.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        hint = f"; expected {expected}" if expected else ""
        raise DataError(f"{file}: {error.strerror}{hint}") from error


def records(content: bytes, file: Path) -> list[Record]:
    """The rows of a file; its suffix, one of :data:`SUFFIXES` in any capitals, selects the reader.

    Raises:
        DataError: the file has no rows, or a row that cannot be read (file and line).
    """
    text = text_of(content, file)
    rows = list(_READERS[file.suffix.lower()](text, file))
    if not rows:
        raise DataError(f"{file}: found no rows, the file {'holds blank lines only' if text else 'is empty'}")
    return rows


def _files(path: Path, aside: Path | None) -> Tables:
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            hint = f"; {advice(path)}" if is_rows(path) else ""
            hint = "; plain texts are for the task text" if path.suffix.lower() in (".txt", ".md") else hint
            found = path.suffix or "no suffix"
            raise DataError(f"{path}: expected a file of {', '.join(SUFFIXES)}, found {found}{hint}")
        return Tables([(path, "train")])
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; name a {' or '.join(SUFFIXES)} file, or a folder of them")
    require_no_orders(path)
    return by_split(path, SUFFIXES, aside)


def _lines(text: str, file: Path) -> Iterator[Record]:
    # Not splitlines(): JSON strings may contain other characters that it treats as line ends.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = parsed(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error}); one object a line is expected") from error
        yield _record(row, where)


def _array(text: str, file: Path) -> Iterator[Record]:
    """Objects of a JSON array, bare or under ``data`` as in SQuAD's own files; otherwise one object per line."""
    try:
        rows = decoded(text)
    except ValueError as error:
        if _in_lines(text):
            yield from _lines(text, file)
            return
        raise DataError(f"{file}: not JSON ({error})") from error
    if isinstance(rows, dict):
        rows = rows["data"] if isinstance(rows.get("data"), list) else [rows]
    if rows == []:
        raise DataError(f"{file}: found no rows, the list is empty")
    checked = suspect(text)
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        where = f"{file}, row {number}"
        if checked:
            check_row(row, where)
        yield _record(row, where)


def _in_lines(text: str) -> bool:
    """Whether there are several lines and the first one is a complete JSON object."""
    first, *more = [line for line in text.split("\n") if line.strip()] or [""]
    try:
        return bool(more) and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _record(row: object, where: str) -> Record:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with fields, found {type(row).__name__}")
    return Record(row, where)


def _csv(text: str, file: Path) -> Iterator[Record]:
    # The limit on a field's size is global to the process, so it is restored at once.
    bound = csv.field_size_limit(len(text) + 1)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            if row:
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(bound)
    require_commas(rows, file)
    return _under_header(rows, file, "as the header has")


def _tsv(text: str, file: Path) -> Iterator[Record]:
    """Rows in GLUE's format: quotes are ordinary characters, and no field contains a tab or a line end."""
    lines = text.rstrip("\r\n").split("\n")
    rows = [(number, line.rstrip("\r").split("\t")) for number, line in enumerate(lines, 1)]
    return _under_header(rows, file, "between tabs")


def _under_header(rows: Sequence[tuple[int, list[str]]], file: Path, how: str) -> Iterator[Record]:
    """Records of rows (line number, values); the first row is the header."""
    if not rows or not any(name.strip() for name in rows[0][1]):
        raise DataError(f"{file}, line 1: expected a header with the names of the columns, found none")
    (line, header), *body = rows
    if twice := next((name for place, name in enumerate(header) if name in header[:place]), None):
        raise DataError(f"{file}, line {line}: two columns are called {twice!r}; rename or remove one")
    if len(set(header)) < len(header):
        raise DataError(f"{file}, line {line}: two columns have no name; name them, or remove them")
    if not body:
        raise DataError(f"{file}: a header and no rows; add rows, or name another file")
    for number, row in body:
        if len(row) != len(header):
            raise DataError(f"{file}, line {number}: expected {len(header)} fields {how}, found {len(row)}")
        yield Record(dict(zip(header, row, strict=True)), f"{file}, line {number}")


_READERS: Mapping[str, Callable[[str, Path], Iterator[Record]]] = {
    ".jsonl": _lines,
    ".json": _array,
    ".csv": _csv,
    ".tsv": _tsv,
}
