"""Rows with named fields out of the files people keep them in: JSON lines, CSV, a data set of the datasets library."""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from forq.core import DataError
from forq.tasks import Split
from forq.tasks._corpus import NAMES

SUFFIXES = (".jsonl", ".json", ".csv")
HUB = "hf:"


class Record(NamedTuple):
    """The fields of a row, and where they stand, for errors."""

    fields: Mapping[str, Any]
    where: str


def read(data: str | Path) -> tuple[dict[Split, list[Record]], str]:
    """Rows by split, and the digest of the bytes they were read from.

    Args:
        data: a file; a folder of files called train, validation (valid, val, dev) and test; a folder written by
            ``datasets.save_to_disk``; or ``hf:org/name``, a data set of the hub, or ``hf:`` and a folder of what that
            library reads (parquet). Files of other names train. No code of a data set is run.

    Raises:
        DataError: no such data, no training rows, or a row cannot be read (file and line).
    """
    if str(data).startswith(HUB):
        return _datasets(str(data).removeprefix(HUB), hub=True)
    path = Path(data)
    if path.is_dir() and any((path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
        return _datasets(str(path), hub=False)
    found: dict[Split, list[Record]] = {}
    state = hashlib.sha256()
    for file in _files(path):
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from error
        state.update(content)
        # Up to the first hyphen: train-v1.1.json, test-00000-of-00001.jsonl.
        split = NAMES.get(file.stem.partition("-")[0], "train") if path.is_dir() else "train"
        found.setdefault(split, []).extend(_READERS[file.suffix](_text(content, file), file))
    if not found.get("train"):
        raise DataError(f"{data}: found no training rows")
    return found, state.hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise DataError(f"{path}: expected a file of {', '.join(SUFFIXES)}, found {path.suffix or 'no suffix'}")
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; name a {' or '.join(SUFFIXES)} file, or a folder of them")
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    if not found:
        raise DataError(f"{path}: found no {' or '.join(SUFFIXES)} file in it")
    return found


def _text(content: bytes, file: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 at byte {error.start} ({error.reason}); convert it first") from error


def _lines(text: str, file: Path) -> Iterator[Record]:
    # Not splitlines(): a line of JSON may hold the other characters that end lines for Python.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error}); one object a line is expected") from error
        yield _record(row, where)


def _array(text: str, file: Path) -> Iterator[Record]:
    """Objects of one JSON array, bare or under ``data`` as in SQuAD's own files; else one object a line."""
    try:
        rows = json.loads(text)
    except ValueError as error:
        if text.lstrip().startswith("["):
            raise DataError(f"{file}: not JSON ({error})") from error
        yield from _lines(text, file)
        return
    if isinstance(rows, dict):
        rows = rows["data"] if isinstance(rows.get("data"), list) else [rows]
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        yield _record(row, f"{file}, row {number}")


def _record(row: object, where: str) -> Record:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with fields, found {type(row).__name__}")
    return Record(row, where)


def _csv(text: str, file: Path) -> Iterator[Record]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            where = f"{file}, line {reader.line_num}"
            if None in row or None in row.values():
                raise DataError(f"{where}: expected {len(reader.fieldnames or ())} fields, as the header has")
            yield Record(row, where)
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: {error}") from error


_READERS = {".jsonl": _lines, ".json": _array, ".csv": _csv}


def _datasets(name: str, *, hub: bool) -> tuple[dict[Split, list[Record]], str]:
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{name}: the datasets library reads it; pip install 'forq[datasets]'") from error
    try:
        loaded = datasets.load_dataset(name, **_no_code(datasets)) if hub else datasets.load_from_disk(name)
    except Exception as error:  # whatever a missing or damaged set ends in, somewhere inside the library
        raise DataError(f"{name}: the datasets library cannot load it: {type(error).__name__}: {error}") from error
    tables = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    found: dict[Split, list[Record]] = {}
    for split, table in tables.items():
        if split in NAMES:
            rows = [Record(row, f"{name}, {split}, row {number}") for number, row in enumerate(table)]
            found[NAMES[split]] = rows
    if not found.get("train"):
        raise DataError(f"{name}: expected a split 'train' with rows, found {', '.join(tables)}")
    texts = {split: [record.fields for record in rows] for split, rows in found.items()}
    return found, hashlib.sha256(json.dumps(texts, sort_keys=True, default=str).encode()).hexdigest()


def _no_code(datasets: Any) -> dict[str, bool]:
    """Data sets that are programs are refused by versions of the library that could still run them."""
    known = inspect.signature(datasets.load_dataset).parameters
    return {"trust_remote_code": False} if "trust_remote_code" in known else {}
