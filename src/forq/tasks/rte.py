"""RTE (SuperGLUE): does a hypothesis follow from a premise?

The prompt is ``<premise>\\nDoes this mean that "<hypothesis>" is true? Yes or No?\\n`` and the words
are ``Yes`` and ``No``, as in MeZO and QZO. A row that is too long loses the beginning of its premise.
The data is train.jsonl and val.jsonl with premise, hypothesis and label.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forq.tasks.kinds.examples import Asked, Classes
from forq.tasks.kinds.superglue import superglue, text, write

_LABELS = ("entailment", "not_entailment")
_KEEP = '" is true? Yes or No?\n'
_CLASSES = Classes(
    ("Yes", "No"),
    _KEEP,
    ("yes, it is true", "no, it is not true"),
    part="the beginning of the premise",
    labels=_LABELS,
)


def example(folder: Path) -> Path:
    """Write premises and hypotheses about which number is larger."""

    def row(n: int) -> Mapping[str, object]:
        follows = n % 2 == 0
        hypothesis = f"{n} is larger than {n - 1 if follows else n + 1}"
        return {"premise": f"Number {n} .", "hypothesis": hypothesis, "label": _LABELS[0 if follows else 1]}

    return write(folder, row, 2000, 100)


def _ask(row: Mapping[str, object]) -> Asked:
    premise, hypothesis = text(row, "premise"), text(row, "hypothesis")
    claim = hypothesis.removesuffix(".")  # the prompt ends the sentence itself; a head reads the text as it is
    question = f'Does this mean that "{claim}" is true? Yes or No?\n'
    return Asked(f"{premise} {question}".strip(), f"{premise}\n{question}", (premise, hypothesis))


preset = superglue("rte", _CLASSES, 'Does this mean that "' + _KEEP, _ask, _LABELS)
open, unlabelled = preset.open, preset.unlabelled
