"""CommitmentBank (SuperGLUE): does a speaker commit to a hypothesis, deny it, or neither?

The prompt is ``Suppose <premise> Can we infer that "<hypothesis>"? Yes, No, or Maybe?\\n`` and the
words are ``Yes``, ``No`` and ``Maybe``, as in MeZO and QZO. The data is train.jsonl or
train_full.jsonl, and val.jsonl, with premise, hypothesis and label. The official train file has 250
rows: 200 for training and 50 for validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forq.tasks.kinds.examples import Asked, Classes
from forq.tasks.kinds.superglue import superglue, text, write

_LABELS = ("entailment", "contradiction", "neutral")
_KEEP = '"? Yes, No, or Maybe?\n'
_CLASSES = Classes(
    ("Yes", "No", "Maybe"),
    _KEEP,
    ("yes, it is true", "no, it is false", "maybe, nobody knows"),
    part="the beginning of the premise",
    labels=_LABELS,
)


def example(folder: Path) -> Path:
    """Write premises and hypotheses about numbers: one follows, one is false, one is neither."""

    def row(n: int) -> Mapping[str, object]:
        hypotheses = (f"{n} is larger than {n - 1}", f"{n} is larger than {n + 1}", f"{n} is blue")
        return {"premise": f"Number {n} .", "hypothesis": hypotheses[n % 3], "label": _LABELS[n % 3]}

    return write(folder, row, 250, 56)


def _ask(row: Mapping[str, object]) -> Asked:
    premise, hypothesis = text(row, "premise"), text(row, "hypothesis")
    claim = hypothesis.removesuffix(".")  # the prompt ends the sentence itself; a head reads the text as it is
    prompt = f'Suppose {premise} Can we infer that "{claim}"? Yes, No, or Maybe?\n'
    return Asked(prompt.strip(), prompt, (premise, hypothesis))


preset = superglue("cb", _CLASSES, 'Suppose  Can we infer that "' + _KEEP, _ask, _LABELS)
open, unlabelled = preset.open, preset.unlabelled
