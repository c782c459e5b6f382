"""Classify rows with a checkpoint, or with what a run saved: a label and a score of each class for every row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from forq.errors import ConfigError, DataError
from forq.models.loaded import LoadedModel
from forq.plugins import registry
from forq.runs.config import TaskConfig
from forq.runs.open_task import check_options, given, settled, within
from forq.tasks.rows.classed import Classed
from forq.tasks.rows.table import Record, read

SUFFIXES = (".csv", ".jsonl")


@dataclass(frozen=True, slots=True)
class Predicted:
    """The labels of some rows.

    Attributes:
        names: the classes.
        labels: the likeliest class of each row, in the order of the file.
        scores: probabilities of the classes, by row, with six digits.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]

    def counts(self) -> dict[str, int]:
        """Number of rows by label."""
        return {name: self.labels.count(name) for name in self.names}

    def rows(self) -> list[dict[str, Any]]:
        """A mapping for each row: its number from 1, its label, and the score of each class."""
        numbered = enumerate(zip(self.labels, self.scores, strict=True), 1)
        return [
            {"row": number, "label": label, "scores": dict(zip(self.names, scores, strict=True))}
            for number, (label, scores) in numbered
        ]

    def text(self, suffix: str) -> str:
        """The rows as JSON lines, or as a table with a column for each class."""
        if suffix == ".jsonl":
            return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows())
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["row", "label", *(f"score {name}" for name in self.names)])
        for row in self.rows():
            writer.writerow([row["row"], row["label"], *row["scores"].values()])
        return buffer.getvalue()


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
        raise ConfigError(f"--split: expected one of {', '.join(found)} of {data}, found {split or 'none'}")
    return found[split]


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
    module = registry.get("tasks", config.name)
    if (asker := getattr(module, "unlabelled", None)) is None:
        raise ConfigError(
            f"--task: expected a classification task, classify or sst2 for example, found {config.name!r}"
        )
    check_options(config, module.open)
    ckpt = model.checkpoint
    task: Classed[Any, Any] = within(
        lambda options: asker(records, model.tokenizer, options, described, **given(ckpt)), config.options, model
    )
    return settled(task, model).budgeted(None, config.micro_batch_tokens)


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
    names = task.names or tuple(name.strip() for name in task.called)
    return Predicted(names, tuple(names[place] for place in likeliest), tuple(scores))


def write(predicted: Predicted, path: Path) -> None:
    """Write the rows into a file; its suffix, one of :data:`SUFFIXES`, chooses the form."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(predicted.text(path.suffix), encoding="utf-8")
    new.replace(path)
