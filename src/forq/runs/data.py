"""Write rows in memory into the run's folder, so that a run reads and resumes them like any file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.kinds.labels import class_name
from forq.tasks.rows.table import class_names

FOLDER = "rows"
"""Sub-folder of a run with a file of JSON lines for each split."""

Rows = Iterable[Mapping[str, object]]
"""A list of mappings, a ``datasets.Dataset``, or anything that yields rows by field name."""

Data = str | Path | Rows | Mapping[str, Rows]
"""A path, rows to train on, or rows by split (a ``datasets.DatasetDict``)."""


Classes = Mapping[str, tuple[str, ...]]
"""Names of labels, by field."""


def as_path(data: Data, folder: Path, *, begun: bool = False) -> str:
    """The path of a task's data: the given path, or the rows in memory, written below ``folder``.

    The same rows give the same bytes, so that a repeated call resumes its run. A number that stands for
    a label (``ClassLabel`` of ``datasets``) is written as the label's name.

    Args:
        begun: a run on these rows is in ``folder`` already; its files are compared, never replaced.

    Raises:
        DataError: a split has an unknown name, or a row (named) is not a mapping or holds a value
            that JSON cannot store, or a number that stands for no label; with ``begun``, the rows are not the run's.
    """
    if isinstance(data, str | Path):
        return str(data)
    splits = data if isinstance(data, Mapping) else {"train": data}
    if unknown := [name for name in splits if name not in get_args(Split)]:
        raise DataError(f"data: expected rows by split ({', '.join(get_args(Split))}), found {unknown[0]!r}")
    target = folder / FOLDER
    classes = {name: class_names(rows) for name, rows in splits.items()}
    # Runs that were begun before names were written have the numbers, and go on with them.
    if begun and any(classes.values()) and _texts(splits, {}) == _there(target):
        return str(target)
    texts = _texts(splits, classes)
    if begun:
        _require_same(target, texts)
        return str(target)
    target.mkdir(parents=True, exist_ok=True)
    for name in get_args(Split):  # a call that failed early may have left other splits
        (target / f"{name}.jsonl").unlink(missing_ok=True)
    for name, text in texts.items():
        new = target / f"{name}.new"
        new.write_text(text, encoding="utf-8")
        new.replace(target / f"{name}.jsonl")
    return str(target)


def _require_same(target: Path, texts: Mapping[str, str]) -> None:
    there = _there(target)
    for name in {**there, **texts}:
        if there.get(name) != texts.get(name):
            raise DataError(
                f"{target / name}.jsonl: expected the {name} rows the run was begun with, found others; give the same "
                "rows, or choose another out"
            )


def _there(target: Path) -> dict[str, str]:
    return {file.stem: file.read_text(encoding="utf-8") for file in target.glob("*.jsonl")}


def _texts(splits: Mapping[str, Rows], classes: Mapping[str, Classes]) -> dict[str, str]:
    """The contents of the files, by split."""
    return {
        name: "".join(
            _line(row, classes.get(name, {}), f"data: {name} row {number}") for number, row in enumerate(rows)
        )
        for name, rows in splits.items()
    }


def _line(row: Mapping[str, object], classes: Classes, where: str) -> str:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected a mapping of fields, found {type(row).__name__}")
    fields = dict(row)
    for name, names in classes.items():
        value = fields.get(name)
        if type(value) is int:
            fields[name] = class_name(value, names, f"{where}, {name!r}")
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: expected text, numbers, lists and mappings, found {error}") from error
