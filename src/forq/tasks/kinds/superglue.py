"""SuperGLUE's classification sets in their own layout: a folder with train and val files of JSON lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.kinds.examples import Asked, Classes, Example
from forq.tasks.kinds.preset import Limits, Preset, Splits
from forq.tasks.rows.fields import Fields
from forq.tasks.rows.order import draw
from forq.tasks.rows.table import content_of, records

_TRAIN = ("train.jsonl", "train_full.jsonl")
_SHARE = 5
"""If the train file is too small for both splits, one row in this many goes to validation."""


def superglue(
    name: str,
    classes: Classes,
    empty: str,
    ask: Callable[[Mapping[str, object]], Asked],
    labels: Sequence[object],
    validation: str | None = None,
) -> Preset:
    """The task of a data set.

    Training and validation rows are drawn from its train file; the official val file is the test. If
    the train file has too few rows for both, all rows are used and one in five goes to validation.
    Without a limit, 500 rows go to validation, and all that it leaves to training.

    Args:
        empty, ask: see :class:`forq.tasks.kinds.preset.Preset`.
        labels: the labels in the data, in the order of the classes.
        validation: name of a file with validation rows. It is used if it exists and the train file
            is too small for both splits.
    """

    def splits(folder: Path, seed: int, limits: Limits) -> Splits:
        read = made.read
        path = next((folder / file for file in _TRAIN if (folder / file).is_file()), folder / _TRAIN[0])
        ignored: set[str] = set()
        known, digest = _examples(path, read, ignored)
        held_out = 500 if limits.validation is None else limits.validation
        wanted = None if limits.train is None else limits.train + held_out
        own = folder / validation if validation is not None else None
        examples: dict[Split, Sequence[Example]]
        if len(known) < (wanted or 2 * held_out) and own is not None and own.is_file():
            held, more = _examples(own, read, ignored)
            digest += more
            examples = {"train": known[: limits.train], "validation": held[:held_out]}
        else:
            if len(known) < (wanted or 2 * held_out):
                held_out, wanted = max(1, min(held_out, len(known) // _SHARE)), None
            order = draw(len(known), len(known) if wanted is None else wanted, seed=seed, digest=digest)
            # Validation rows are taken first, so they do not depend on the number of training rows.
            picked = [known[row] for row in order]
            examples = {"train": picked[held_out:], "validation": picked[:held_out]}
        examples["test"] = _examples(folder / "val.jsonl", read, ignored)[0][: limits.test]
        return Splits(examples, ignored)

    made = Preset(name, classes, empty, ask, lambda row: label(row, labels), splits)
    return made


def write(folder: Path, rows: Callable[[int], Mapping[str, object]], train: int, val: int) -> Path:
    """Write an example set; ``rows`` makes the row with a given number."""
    for name, numbers in (("train.jsonl", range(train)), ("val.jsonl", range(train, train + val))):
        lines = (json.dumps(dict(rows(number))) + "\n" for number in numbers)
        (folder / name).write_text("".join(lines), encoding="utf-8")
    return folder


def label(row: Mapping[str, object], names: Sequence[object]) -> int:
    """The class of a row: the index of its ``label`` among the names.

    Raises:
        ValueError: the label is not among the names.
    """
    value = row["label"]
    for index, name in enumerate(names):
        if value == name and isinstance(value, bool) == isinstance(name, bool):
            return index
    raise ValueError(f"expected a label among {', '.join(map(str, names))}, found {value!r}")


def text(row: Mapping[str, object], field: str) -> str:
    """The text in a field, without white space around it.

    Raises:
        ValueError: the field holds no text.
    """
    value = row[field]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected text in {field!r}, found {value!r}")
    return value.strip()


def _examples(
    path: Path, read: Callable[[Mapping[str, object]], Example], ignored: set[str]
) -> tuple[list[Example], str]:
    """The examples in a file and the digest of its bytes. Fields that are not read are added to ``ignored``."""
    content = content_of(path, "SuperGLUE's train.jsonl and val.jsonl")
    examples = []
    for record in records(content, path):
        fields = Fields(record.fields)
        try:
            examples.append(read(fields))
        except KeyError as error:
            raise DataError(f"{record.where}: expected a field {error}, found {', '.join(fields)}") from error
        except ValueError as error:
            raise DataError(f"{record.where}: {error}") from error
        ignored |= fields.unread()
    return examples, hashlib.sha256(content).hexdigest()
