"""Write rows in memory into the run's folder, so that a run reads and resumes them like any file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from forq.errors import DataError
from forq.tasks import Split

FOLDER = "rows"
"""Sub-folder of a run with a file of JSON lines for each split."""

Rows = Iterable[Mapping[str, object]]
"""A list of mappings, a ``datasets.Dataset``, or anything that yields rows by field name."""

Data = str | Path | Rows | Mapping[str, Rows]
"""A path, rows to train on, or rows by split (a ``datasets.DatasetDict``)."""


def as_path(data: Data, folder: Path, *, begun: bool = False) -> str:
    """The path of a task's data: the given path, or the rows in memory, written below ``folder``.

    The same rows give the same bytes, so that a repeated call resumes its run.

    Args:
        begun: a run on these rows is in ``folder`` already; its files are compared, never replaced.

    Raises:
        DataError: a split has an unknown name, or a row (named) is not a mapping or holds a value
            that JSON cannot store; with ``begun``, the rows are not the run's.
    """
    if isinstance(data, str | Path):
        return str(data)
    splits = data if isinstance(data, Mapping) else {"train": data}
    if unknown := [name for name in splits if name not in get_args(Split)]:
        raise DataError(f"data: expected rows by split ({', '.join(get_args(Split))}), found {unknown[0]!r}")
    texts = {
        name: "".join(_line(row, name, number) for number, row in enumerate(rows)) for name, rows in splits.items()
    }
    target = folder / FOLDER
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
    there = {file.stem: file.read_text(encoding="utf-8") for file in target.glob("*.jsonl")}
    for name in {**there, **texts}:
        if there.get(name) != texts.get(name):
            raise DataError(
                f"{target / name}.jsonl: expected the {name} rows the run was begun with, found others; give the same "
                "rows, or choose another out"
            )


def _line(row: Mapping[str, object], split: str, number: int) -> str:
    where = f"data: {split} row {number}"
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected a mapping of fields, found {type(row).__name__}")
    try:
        return json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: expected text, numbers, lists and mappings, found {error}") from error
