"""Classify rows with a checkpoint, or with what a run saved: a label and a score of each class for every row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from forq.errors import ConfigError, DataError
from forq.models.loaded import LoadedModel
from forq.plugins import registry
from forq.plugins.registry import nearest
from forq.runs.config import TaskConfig
from forq.runs.open_task import check_options, given, settled_task, within
from forq.tasks.rows.classed import Classed
from forq.tasks.rows.record import Record
from forq.tasks.rows.table import read

SUFFIXES = (".csv", ".jsonl")
ALL = "all"
"""In place of the name of a field to keep: every field."""

_OWN = ("row", "label", "scores")


@dataclass(frozen=True, slots=True)
class Predicted:
    """The labels of some rows.

    Attributes:
        names: the classes.
        labels: the likeliest class of each row, in the order of the file.
        scores: probabilities of the classes, by row, with six digits.
        kept: fields of the rows that are copied, for each row the same; empty if none are.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    kept: tuple[Mapping[str, object], ...] = ()

    def counts(self) -> dict[str, int]:
        """Number of rows by label."""
        return {name: self.labels.count(name) for name in self.names}

    def rows(self) -> list[dict[str, Any]]:
        """A mapping for each row: its number from 1, its label, the score of each class, and the fields it keeps."""
        kept = self.kept or ({},) * len(self.labels)
        numbered = enumerate(zip(self.labels, self.scores, kept, strict=True), 1)
        return [
            {"row": number, "label": label, "scores": dict(zip(self.names, scores, strict=True)), **fields}
            for number, (label, scores, fields) in numbered
        ]

    def text(self, suffix: str) -> str:
        """The rows as JSON lines, or as a table with a column for each class."""
        if suffix == ".jsonl":
            return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in self.rows())
        fields = list(self.kept[0]) if self.kept else []
        lines = [_line(["row", "label", *map(_column, self.names), *fields])]
        for row in self.rows():
            own = [row["row"], row["label"], *row["scores"].values()]
            lines.append(_line([*own, *(_cell(row[name]) for name in fields)]))
        return "".join(lines)


def require_classes(task: str) -> None:
    """Refuse a task that does not classify texts, before data is read for it.

    Raises:
        ConfigError: the task is unknown, or is of another kind.
    """
    if not hasattr(registry.get("tasks", task), "unlabelled"):
        raise ConfigError(f"task: expected a classification task on texts, such as classify or sst2, found {task!r}")


def rows_of(data: str, split: str | None = None) -> list[Record]:
    """The rows of a file, or of a split of a data set.

    Raises:
        ConfigError: the data has several splits and none is named, or not that one.
        DataError: the data cannot be read.
    """
    found = read(data).rows
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:
        raise ConfigError(f"split: expected one of {', '.join(found)} of {data}, found {split or 'none'}")
    return found[split]


def fields_of(records: Sequence[Record], keep: Sequence[str]) -> tuple[str, ...]:
    """The fields to keep, in the order of the rows' own.

    Args:
        keep: names of fields, or :data:`ALL`.

    Raises:
        ConfigError: the rows have no such field (the nearest is named), or it has the name of a column that is written.
    """
    known = list(dict.fromkeys(name for record in records for name in record.fields))
    for name in keep:
        if name not in (*known, ALL):
            listed = ", ".join(map(repr, known))
            raise ConfigError(f"keep {name}: expected a field of the rows{nearest(name, known)}, found {listed}")
    chosen = tuple(name for name in known if ALL in keep or name in keep)
    _require_others(chosen, _OWN)
    return chosen


def require_free(fields: Sequence[str], task: Classed[Any, Any]) -> None:
    """Refuse fields to keep that have the name of a column of scores.

    Raises:
        ConfigError: there is one.
    """
    _require_others(fields, list(map(_column, _names(task))))


def with_fields(predicted: Predicted, records: Sequence[Record], fields: Sequence[str]) -> Predicted:
    """The labels with fields of the rows; a row without one of them has None."""
    if not fields:
        return predicted
    return replace(predicted, kept=tuple({name: record.fields.get(name) for name in fields} for record in records))


def opened(
    config: TaskConfig, model: LoadedModel, records: Sequence[Record], described: Mapping[str, object]
) -> Classed[Any, Any]:
    """A classification task of rows without labels, for a model.

    Args:
        described: the description of a run's task, which holds its labels; or nothing.

    Raises:
        ConfigError: the task has no classes, or an option is invalid.
        DataError: a row cannot be used (file and line).
    """
    require_classes(config.name)
    module, ckpt = registry.get("tasks", config.name), model.checkpoint
    check_options(config, module.open)
    task: Classed[Any, Any] = within(
        lambda options: module.unlabelled(records, model.tokenizer, options, described, **given(ckpt)),
        config.options,
        model,
    )
    return settled_task(task, model).budgeted(None, config.micro_batch_tokens)


def predict(model: LoadedModel, task: Classed[Any, Any]) -> Predicted:
    """Classify the rows of the split ``test``.

    Raises:
        DataError: the model gives a row scores that are not finite.
    """
    rows = task.rows["test"]
    order = sorted(range(len(rows)), key=lambda place: (task.length(rows[place]), place))
    scores: list[tuple[float, ...]] = [()] * len(rows)
    likeliest = [0] * len(rows)
    for start in range(0, len(order), task.batch_rows):
        places = order[start : start + task.batch_rows]
        batch = task.pack([rows[place] for place in places], task.micro_batch_tokens)
        with torch.inference_mode():
            logits = task.logits(model, batch)
        found = logits.double().softmax(dim=1)
        if not bool(found.isfinite().all()):
            raise DataError("expected finite scores, found NaN or infinity: the checkpoint is damaged")
        # The label is chosen as a score of the task chooses it: before probabilities are rounded, some to a tie.
        for place, best, row in zip(places, logits.argmax(dim=1).tolist(), found.tolist(), strict=True):
            likeliest[place], scores[place] = best, tuple(round(value, 6) for value in row)
    names = _names(task)
    return Predicted(names, tuple(names[place] for place in likeliest), tuple(scores))


def _names(task: Classed[Any, Any]) -> tuple[str, ...]:
    """The names of a task's classes."""
    return task.names or tuple(name.strip() for name in task.called)


def _column(name: str) -> str:
    """The column of a class's scores."""
    return f"score {name}"


def _line(cells: Sequence[object]) -> str:
    """A line of a table."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow(cells)  # with its own line end it quotes a field with ``\\r``, which ends a line too
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: object) -> object:
    """A field of a row as a table holds it: lists and mappings as JSON."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value


def _require_others(fields: Sequence[str], own: Sequence[str]) -> None:
    if taken := next((name for name in fields if name in own), None):
        raise ConfigError(
            f"keep: expected fields with other names than the columns that are written, found {taken!r}; rename the "
            "field, or name the others to keep one by one"
        )


def write(predicted: Predicted, path: Path) -> None:
    """Write the rows into a file; its suffix, one of :data:`SUFFIXES`, chooses the form."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(predicted.text(path.suffix), encoding="utf-8")
    new.replace(path)
