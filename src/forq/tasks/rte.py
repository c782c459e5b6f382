"""RTE (SuperGLUE): does a hypothesis follow from a premise?

The prompt is ``<premise>\\nDoes this mean that "<hypothesis>" is true? Yes or No?\\n`` and the words
are ``Yes`` and ``No``, as in MeZO and QZO. A row that is too long loses the beginning of its premise.
The data is train.jsonl and val.jsonl with premise, hypothesis and label.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forq.tasks import Task, Tokenizer
from forq.tasks.kinds.classify import By, Classes, Example
from forq.tasks.kinds.superglue import label, superglue, text, write
from forq.tokens.model import Kind

_LABELS = ("entailment", "not_entailment")
_KEEP = '" is true? Yes or No?\n'
_CLASSES = Classes(("Yes", "No"), _KEEP, ("yes, it is true", "no, it is not true"), part="the beginning of the premise")


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
        "rte",
        data,
        tokenizer,
        _CLASSES,
        _read,
        seed=seed,
        train_rows=train_rows,
        validation_rows=validation_rows,
        test_rows=test_rows,
        kind=kind,
        by=by,
        temperature=temperature,
        max_length=max_length,
        batch_rows=batch_rows,
        balanced=balanced,
    )


def example(folder: Path) -> Path:
    """Write premises and hypotheses about which number is larger."""

    def row(n: int) -> Mapping[str, object]:
        follows = n % 2 == 0
        hypothesis = f"{n} is larger than {n - 1 if follows else n + 1}"
        return {"premise": f"Number {n} .", "hypothesis": hypothesis, "label": _LABELS[0 if follows else 1]}

    return write(folder, row, 2000, 100)


def _read(row: Mapping[str, object]) -> Example:
    premise, hypothesis = text(row, "premise"), text(row, "hypothesis").removesuffix(".")
    question = f'Does this mean that "{hypothesis}" is true? Yes or No?\n'
    return Example(f"{premise} {question}".strip(), f"{premise}\n{question}", label(row, _LABELS))
