"""BoolQ (Clark et al. 2019, SuperGLUE): a yes-or-no question about a passage.

The prompt is ``<passage> <question>?\\n`` and the words are ``Yes`` and ``No``, as in MeZO and QZO. A
row that is too long loses the beginning of its passage. The data is train.jsonl and val.jsonl with
question, passage and label. If the train file is a few-shot sample, dev32.jsonl beside it is the
validation split.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forq.tasks.kinds.examples import Asked, Classes
from forq.tasks.kinds.superglue import superglue, text, write

_LABELS = (True, False)
_KEEP = "?\n"
_CLASSES = Classes(
    ("Yes", "No"),
    _KEEP,
    ("yes, it is true", "no, it is not true"),
    part="the beginning of the passage",
    labels=("1", "0"),
)


def example(folder: Path) -> Path:
    """Write questions about whether a number is even."""

    def row(n: int) -> Mapping[str, object]:
        return {"passage": f"Number {n} .", "question": f"is {n} even", "label": n % 2 == 0}

    return write(folder, row, 2000, 100)


def _ask(row: Mapping[str, object]) -> Asked:
    passage, question = text(row, "passage"), text(row, "question")
    asked = question.removesuffix("?")
    prompt = f"{passage} {asked[:1].upper()}{asked[1:]}?\n"
    return Asked(prompt.strip(), prompt, (question, passage))


preset = superglue("boolq", _CLASSES, _KEEP, _ask, _LABELS, "dev32.jsonl")
open, unlabelled = preset.open, preset.unlabelled
