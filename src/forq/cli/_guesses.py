"""What a model guesses of unseen text: in numbers, and letter by letter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forq.models.loaded import LoadedModel
    from forq.tasks.text import Text

HIDDEN = "·"


@dataclass(frozen=True, slots=True)
class Guesses:
    """The guesses of a model on the test text. Each is made from the true text before it.

    Attributes:
        right: share of the pieces (tokens) of which the likeliest is the right one.
        chance: probability that the model gives to the right piece, geometric mean.
        letters: of each window the text with the pieces that were not guessed hidden, spaces and
            line ends shown.
    """

    right: float
    chance: float
    letters: tuple[str, ...]


def guesses(model: LoadedModel, task: Text) -> Guesses:
    """Guess every piece of a task's test text."""
    import torch

    right, pieces, nll = 0, 0, 0.0
    letters = []
    for batch in task.batches("test"):
        with torch.inference_mode():
            logits = torch.cat([chunk.cpu() for chunk in model.scored_logits(batch)])
        hits = logits.argmax(dim=1) == batch.target
        right, pieces = right + int(hits.sum()), pieces + len(hits)
        nll += float(torch.nn.functional.cross_entropy(logits, batch.target, reduction="sum"))
        for hit, target in zip(hits.split(batch.lengths), batch.target.split(batch.lengths), strict=True):
            letters.append("".join(_shown(task, int(token), bool(h)) for token, h in zip(target, hit, strict=True)))
    return Guesses(right / pieces, math.exp(-nll / pieces), tuple(letters))


def passage(windows: tuple[str, ...], width: int = 60, lines: int = 2) -> slice:
    raise NotImplementedError


def _shown(task: Text, token: int, guessed: bool) -> str:
    text = task.tokenizer.decode([token])
    return text if guessed else "".join(letter if letter.isspace() else HIDDEN for letter in text)
