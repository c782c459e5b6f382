"""SST-2 (Socher et al. 2013, GLUE): is a sentence of a film review friendly or not?

The prompt is ``<sentence> It was`` and the words are `` terrible`` (0) and `` great`` (1), as in
MeZO and QZO. Masked encoders see ``<sentence> It was [MASK].``; bare encoders compare the sentence
with one label sentence per class.

The data is a folder in GLUE's layout: ``train.tsv`` and ``dev.tsv``, separated by tabs, without
quoting, with a header that names ``label`` and ``sentence`` (``content`` in some mirrors). The test
split is the official dev file. Training and validation rows are drawn from the train file with the
seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from forq.errors import ConfigError, DataError
from forq.tasks import Split
from forq.tasks.kinds.examples import Asked, Classes, Example
from forq.tasks.kinds.preset import Limits, Preset, Splits
from forq.tasks.kinds.superglue import label, text
from forq.tasks.rows.order import draw
from forq.tasks.rows.record import Record
from forq.tasks.rows.table import content_of, records

_ASK = " It was"

# Fourteen pairs of label sentences were tried on 1,500 training rows with MiniLM at 4 bits. This pair reaches 75.4 %;
# the best reaches 76.1 %. Single words reach 70 %, longer lists of words 63–69 %.
# Of the temperatures 0.02, 0.05, 0.1 and 0.2, 0.05 had the lowest loss.
_CLASSES = Classes(
    (" terrible", " great"),
    _ASK,
    ("a terrible movie", "a great movie"),
    part="the beginning of the sentence",
    labels=("0", "1"),
)
_TEXT_COLUMNS = ("sentence", "content")


def _splits(folder: Path, seed: int, limits: Limits) -> Splits:
    known, digest, ignored = _read(folder / "train.tsv")
    official, _, more = _read(folder / "dev.tsv")
    held_out = 500 if limits.validation is None else limits.validation
    wanted = len(known) if limits.train is None else held_out + limits.train
    if wanted > len(known) or held_out >= wanted:
        raise ConfigError(
            f"{folder / 'train.tsv'} has {len(known)} rows, but {held_out} for validation and "
            f"{limits.train or 'some'} for training were asked for: lower them"
        )
    # Validation rows are taken first, so they do not depend on the number of training rows.
    picked = [known[row] for row in draw(len(known), wanted, seed=seed, digest=digest)]
    examples: dict[Split, Sequence[Example]] = {
        "train": picked[held_out:],
        "validation": picked[:held_out],
        "test": official[: limits.test],
    }
    return Splits(examples, ignored | more)


def example(folder: Path) -> Path:
    """Write 2,100 different sentences with obvious labels."""
    for name, rows in (("train.tsv", range(2000)), ("dev.tsv", range(2000, 2100))):
        lines = [f"{n % 2}\tfilm number {n} is {'good' if n % 2 else 'bad'} ." for n in rows]
        (folder / name).write_text("\n".join(["label\tsentence", *lines, ""]), encoding="utf-8")
    return folder


def _read(path: Path) -> tuple[list[Example], str, set[str]]:
    """The examples in a file, the digest of its bytes, and the columns that are not read."""
    content = content_of(path, "GLUE's train.tsv and dev.tsv")
    rows = records(content, path)
    columns = list(rows[0].fields)
    text = next((name for name in _TEXT_COLUMNS if name in columns), None)
    if text is None or "label" not in columns:
        raise DataError(f"{path}, line 1: expected a header with 'sentence' and 'label', found {columns}")
    examples = [_example(row, text) for row in rows]
    return examples, hashlib.sha256(content).hexdigest(), set(columns) - {text, "label"}


def _example(row: Record, text: str) -> Example:
    plain, label = str(row.fields[text]), str(row.fields["label"]).strip()
    sentence = plain.strip()
    if label not in ("0", "1"):
        raise DataError(f"{row.where}: label must be 0 or 1, found {label!r}")
    if not sentence:
        raise DataError(f"{row.where}: the sentence is empty")
    return Example(sentence, sentence + _ASK, int(label), (plain,))


def _ask(fields: Mapping[str, object]) -> Asked:
    name = next((name for name in _TEXT_COLUMNS if name in fields), _TEXT_COLUMNS[0])
    sentence = text(fields, name)
    return Asked(sentence, sentence + _ASK, (str(fields[name]),))


preset = Preset("sst2", _CLASSES, _ASK.strip(), _ask, lambda fields: label(fields, ("0", "1")), _splits)
open, unlabelled = preset.open, preset.unlabelled
