"""Write rows in memory into the run's folder, so that a run reads and resumes them like any file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sized
from pathlib import Path
from typing import get_args

import numpy as np

from forq.errors import ConfigError, DataError
from forq.plugins import registry
from forq.tasks import Split
from forq.tasks.kinds.labels import class_name
from forq.tasks.rows import class_file
from forq.tasks.rows.data_set import class_names
from forq.tasks.rows.split_names import NAMES
from forq.tasks.rows.unfilled import unfilled

FOLDER = "rows"
"""Sub-folder of a run with a file of JSON lines for each split."""

Rows = Iterable[Mapping[str, object]]
"""A list of mappings, a ``datasets.Dataset``, or anything that yields rows by field name."""

Data = str | Path | Rows | Mapping[str, Rows]
"""A path, rows to train on, or rows by split (a ``datasets.DatasetDict``)."""


Classes = Mapping[str, tuple[str, ...]]
"""Names of labels, by field."""


def located(data: str | None, task: str) -> str:
    """The whole path of the data that a user means, so that another session in another folder finds the same.

    Args:
        data: a path, also inside ``$FORQ_DATA``, or a data set of the hub (``hf:ID``). None: what has the task's
            name in ``$FORQ_DATA``.

    Raises:
        ConfigError: there is no such task.
        DataError: there is nothing of that name.
    """
    known = [registry.shown("tasks", name) for name in registry.names("tasks")]
    if task.replace("_", "-") not in known:
        raise ConfigError(f"no task is called {task!r}{registry.nearest(task, known)}; known: {', '.join(known)}")
    if data is not None and data.startswith("hf:"):
        return data
    home = os.environ.get("FORQ_DATA")
    places = [] if data is None else [Path(data)]
    places += [Path(home).expanduser() / (task if data is None else data)] if home else []
    for place in places:
        if place.exists():
            return str(place.resolve())
    if not places:
        raise DataError(f"no data for task {task!r}: name a file or folder as its data, or set $FORQ_DATA")
    looked = " or ".join(dict.fromkeys(map(str, places)))
    raise DataError(f"no data for task {task!r}: looked at {looked}; name a file or folder as its data")


def path_of(data: Data, task: str, folder: Path, *, begun: bool = False) -> str:
    """The path of a task's data: :func:`located`, or of rows in memory :func:`as_path`."""
    return located(str(data) or None, task) if isinstance(data, str | Path) else as_path(data, folder, begun=begun)


def as_path(data: Rows | Mapping[str, Rows], folder: Path, *, begun: bool = False) -> str:
    """The path of rows in memory, written below ``folder``.

    The same rows give the same bytes, so that a repeated call resumes its run. A number that stands for
    a label (``ClassLabel`` of ``datasets``) is written as the label's name. The order of the names is in a hidden file
    (:mod:`forq.tasks.rows.class_file`), which a run from before that does not get. Nulls that Arrow filled into structs
    are left out.

    Args:
        begun: a run on these rows is in ``folder`` already; its files are compared, never replaced.

    Raises:
        DataError: there are no rows, a split has an unknown name, or a row (named) is not a mapping or holds a value
            that JSON cannot store, or a number that stands for no label; with ``begun``, the rows are not the run's.
    """
    splits = _by_split(data) if isinstance(data, Mapping) else {"train": data}
    if isinstance(data, Sized) and not len(data):
        raise DataError("data: expected rows, found none")
    target = (folder / FOLDER).resolve()
    classes = {name: class_names(rows) for name, rows in splits.items()}
    # Runs that were begun before names were written, and nulls left out, go on with what they have.
    if begun and any(hasattr(rows, "features") for rows in splits.values()):
        there = _there(target)
        if any(_texts(splits, names, filled=filled) == there for names in ({}, classes) for filled in (True, False)):
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
    class_file.write(target, {NAMES[name]: known for name, known in classes.items()})
    return str(target)


def _by_split(data: Mapping[str, Rows]) -> dict[str, Rows]:
    """Rows by split; splits may have the names that files may have (``val``, ``dev``)."""
    splits: dict[str, Rows] = {}
    for name, rows in data.items():
        if (split := NAMES.get(str(name).casefold())) is None:
            raise DataError(
                f"data: expected rows by split ({', '.join(get_args(Split))}), found {name!r}; rows are a list of "
                "mappings, not a mapping of columns"
            )
        if split in splits:
            raise DataError(f"data: expected each split once, found two names of {split}, one of them {name!r}")
        splits[split] = rows
    return splits


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


def _texts(splits: Mapping[str, Rows], classes: Mapping[str, Classes], *, filled: bool = False) -> dict[str, str]:
    """The contents of the files, by split; ``filled``: with the nulls that Arrow fills in."""
    texts = {}
    for name, rows in splits.items():
        known, features = classes.get(name, {}), {} if filled else getattr(rows, "features", None) or {}
        texts[name] = "".join(
            _line(row, known, features, f"data: {name} row {number}") for number, row in enumerate(rows)
        )
    return texts


def _line(row: Mapping[str, object], classes: Classes, features: Mapping[str, object], where: str) -> str:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected a mapping of fields, found {type(row).__name__}")
    fields = unfilled(row, features)
    for name, names in classes.items():
        value = fields.get(name)
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            fields[name] = class_name(int(value), names, f"{where}, {name!r}")
    try:
        return json.dumps(fields, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: expected text, numbers, lists and mappings, found {error}") from error


def _plain(value: object) -> object:
    """A number of NumPy as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r:.60} of {type(value).__name__}")
