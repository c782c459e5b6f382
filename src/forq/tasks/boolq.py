"""BoolQ (Clark et al. 2019, SuperGLUE): a yes-or-no question about a passage.

The prompt is ``<passage> <question>?\\n`` and the words are ``Yes`` and ``No``, as in MeZO and QZO. A
row that is too long loses the beginning of its passage. The data is train.jsonl and val.jsonl with
question, passage and label. If the train file is a few-shot sample, dev32.jsonl beside it is the
validation split.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forq.tasks import Task, Tokenizer
from forq.tasks.kinds.classify import By, Classes, Example
from forq.tasks.kinds.superglue import label, superglue, text, write
from forq.tokens.model import Kind

_LABELS = (True, False)
_KEEP = "?\n"
_CLASSES = Classes(("Yes", "No"), _KEEP, ("yes, it is true", "no, it is not true"), part="the beginning of the passage")


def open(
    data: Path,
    tokenizer: Tokenizer,
    *,
    seed: int,
    max_length: int = 512,
    batch_rows: int = 16,
    balanced: bool = True,
    train_rows: int | None = 1000,
    validation_rows: int | None = 500,
    test_rows: int | None = None,
    by: By = "auto",
    temperature: float = 0.05,
    kind: Kind = "causal",
) -> Task:
    """Read and tokenise the rows; see :func:`forq.tasks.kinds.superglue.superglue` and :mod:`forq.tasks.sst2`."""
    return superglue(
        "boolq",
        data,
        tokenizer,
        _CLASSES,
        _read,
        seed=seed,
        train_rows=train_rows,
        validation_rows=validation_rows,
        test_rows=test_rows,
        validation="dev32.jsonl",
        kind=kind,
        by=by,
        temperature=temperature,
        max_length=max_length,
        batch_rows=batch_rows,
        balanced=balanced,
    )


def example(folder: Path) -> Path:
    """Write questions about whether a number is even."""

    def row(n: int) -> Mapping[str, object]:
        return {"passage": f"Number {n} .", "question": f"is {n} even", "label": n % 2 == 0}

    return write(folder, row, 2000, 100)


def _read(row: Mapping[str, object]) -> Example:
    passage, question = text(row, "passage"), text(row, "question").removesuffix("?")
    prompt = f"{passage} {question[:1].upper()}{question[1:]}?\n"
    return Example(prompt.strip(), prompt, label(row, _LABELS))
