"""Rows of a data set of the ``datasets`` library. A data set's code is never run."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.rows.json_rows import check_row
from forq.tasks.rows.record import Record, Table
from forq.tasks.rows.split_names import of_data_set
from forq.tasks.rows.unfilled import unfilled


def of_datasets(name: str, *, hub: bool) -> Table:
    """The rows of a data set of the hub, of a folder that the library reads, or of one written by ``save_to_disk``.

    Raises:
        DataError: the library is missing or cannot load it, or a row is damaged.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{name}: the datasets library reads it; pip install 'forq[datasets]'") from error
    try:
        loaded = datasets.load_dataset(name, **_no_code(datasets)) if hub else datasets.load_from_disk(name)
    except Exception as error:  # the library raises many kinds of errors for a missing or damaged data set
        raise DataError(f"{name}: the datasets library cannot load it: {type(error).__name__}: {error}") from error
    tables = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    splits = of_data_set(tables)
    rows: dict[Split, list[Record]] = {}
    classes: dict[Split, dict[str, tuple[str, ...]]] = {}
    for own, split in splits.items():
        known = class_names(tables[own])
        if known != classes.setdefault(split, known):
            raise DataError(
                f"{name}, {own}: expected the label names of the other {split} rows, {classes[split]}, found {known}; "
                "leave one of the splits out"
            )
        rows.setdefault(split, []).extend(_rows(tables[own], f"{name}, {own}"))
    if not rows.get("train"):
        raise DataError(f"{name}: expected a split 'train' with rows, found {', '.join(tables)}")
    texts = {split: [record.fields for record in part] for split, part in rows.items()}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True, default=str).encode()).hexdigest()
    unused = tuple(f"split {split}" for split in tables if split not in splits)
    return Table(rows, digest, unused, classes)


def class_names(rows: object) -> dict[str, tuple[str, ...]]:
    """Names of the labels that numbers stand for, by field, of a ``datasets.Dataset``; of other rows none."""
    features = getattr(rows, "features", None) or {}
    return {name: tuple(feature.names) for name, feature in features.items() if hasattr(feature, "names")}


def _rows(table: Iterable[Mapping[str, object]], where: str) -> Iterator[Record]:
    """The rows of a split of a data set."""
    rows, features = enumerate(table), getattr(table, "features", None) or {}
    while True:
        try:
            number, row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # a damaged file raises the library's own errors when its rows are read
            raise DataError(f"{where}: a row cannot be read: {type(error).__name__}: {error}") from error
        check_row(row, f"{where}, row {number}")
        yield Record(row, f"{where}, row {number}", unfilled(row, features))


def _no_code(datasets: ModuleType) -> dict[str, bool]:
    """Options that forbid running a data set's code, for versions of the library that still can."""
    known = inspect.signature(datasets.load_dataset).parameters
    return {"trust_remote_code": False} if "trust_remote_code" in known else {}
