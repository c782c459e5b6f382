"""CommitmentBank (SuperGLUE): does a speaker commit to a hypothesis, deny it, or neither?

The prompt is ``Suppose <premise> Can we infer that "<hypothesis>"? Yes, No, or Maybe?\\n`` and the
words are ``Yes``, ``No`` and ``Maybe``, as in MeZO and QZO. The data is train.jsonl or
train_full.jsonl, and val.jsonl, with premise, hypothesis and label. The official train file has 250
rows: 200 for training and 50 for validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forq.tasks import Task, Tokenizer
from forq.tasks.kinds.classify import By, Classes, Example
from forq.tasks.kinds.superglue import label, superglue, text, write
from forq.tokens.model import Kind

_LABELS = ("entailment", "contradiction", "neutral")
_KEEP = '"? Yes, No, or Maybe?\n'
_CLASSES = Classes(
    ("Yes", "No", "Maybe"),
    _KEEP,
    ("yes, it is true", "no, it is false", "maybe, nobody knows"),
    part="the beginning of the premise",
)


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
        "cb",
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
    """Write premises and hypotheses about numbers: one follows, one is false, one is neither."""

    def row(n: int) -> Mapping[str, object]:
        hypotheses = (f"{n} is larger than {n - 1}", f"{n} is larger than {n + 1}", f"{n} is blue")
        return {"premise": f"Number {n} .", "hypothesis": hypotheses[n % 3], "label": _LABELS[n % 3]}

    return write(folder, row, 250, 56)


def _read(row: Mapping[str, object]) -> Example:
    premise, hypothesis = text(row, "premise"), text(row, "hypothesis").removesuffix(".")
    prompt = f'Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n'
    return Example(prompt.strip(), prompt, label(row, _LABELS))
