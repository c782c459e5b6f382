"""SuperGLUE's classification sets in their own layout: a folder with train and val files of JSON lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from forq.errors import ConfigError, DataError
from forq.tasks import Split, Task, Tokenizer
from forq.tasks.kinds.classify import By, Classes, Example, classify
from forq.tasks.rows.fields import Fields
from forq.tasks.rows.order import draw
from forq.tasks.rows.table import content_of, records
from forq.tokens.model import Kind

_TRAIN = ("train.jsonl", "train_full.jsonl")
_SHARE = 5
"""If the train file is too small for both splits, one row in this many goes to validation."""


def superglue(
    name: str,
    data: Path,
    tokenizer: Tokenizer,
    classes: Classes,
    read: Callable[[Mapping[str, object]], Example],
    *,
    seed: int,
    train_rows: int | None,
    validation_rows: int | None,
    test_rows: int | None,
    validation: str | None = None,
    kind: Kind,
    by: By,
    temperature: float,
    max_length: int,
    batch_rows: int,
    balanced: bool,
) -> Task:
    """Open a data set.

    Training and validation rows are drawn from its train file; the official val file is the test.

    Args:
        read: makes an example from a row's fields. It raises KeyError or ValueError if it cannot.
        train_rows, validation_rows: rows of each split. If the file has too few rows for both, all
            rows are used and one in five goes to validation. None: 500 rows for validation, and all
            rows that validation leaves for training.
        test_rows: number of rows from the start of the val file; None: all.
        validation: name of a file with validation rows. It is used if it exists and the train file
            is too small for both splits.

    Raises:
        ConfigError: a split would be empty.
        DataError: a file is missing or empty, or a row cannot be used (file and line).
    """
    limits = (train_rows, validation_rows, test_rows)
    if any(rows is not None and rows < 1 for rows in limits):
        raise ConfigError(f"splits need 1 row or more, found {limits}")
    folder = Path(data)
    path = next((folder / file for file in _TRAIN if (folder / file).is_file()), folder / _TRAIN[0])
    ignored: set[str] = set()
    known, digest = _examples(path, read, ignored)
    held_out = 500 if validation_rows is None else validation_rows
    wanted = None if train_rows is None else train_rows + held_out
    own = folder / validation if validation is not None else None
    if len(known) < (wanted or 2 * held_out) and own is not None and own.is_file():
        held, more = _examples(own, read, ignored)
        digest += more
        examples: dict[Split, Sequence[Example]] = {"train": known[:train_rows], "validation": held[:held_out]}
    else:
        if len(known) < (wanted or 2 * held_out):
            held_out, wanted = max(1, min(held_out, len(known) // _SHARE)), None
        order = draw(len(known), len(known) if wanted is None else wanted, seed=seed, digest=digest)
        # Validation rows are taken first, so they do not depend on the number of training rows.
        picked = [known[row] for row in order]
        examples = {"train": picked[held_out:], "validation": picked[:held_out]}
    examples["test"] = _examples(folder / "val.jsonl", read, ignored)[0][:test_rows]
    return classify(
        name,
        examples,
        tokenizer,
        classes,
        kind=kind,
        by=by,
        temperature=temperature,
        seed=seed,
        max_length=max_length,
        batch_rows=batch_rows,
        balanced=balanced,
        ignored=tuple(sorted(ignored)),
    )


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
