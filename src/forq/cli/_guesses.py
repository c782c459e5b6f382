"""What a model guesses of unseen text: in numbers that need no explanation, and letter by letter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forq.models.loaded import LoadedModel
    from forq.tasks import Task
    from forq.tokens.batches import Batch


@dataclass(frozen=True, slots=True)
class Guesses:
    """The guesses of a model on the test text; each piece (token) is guessed from the true text before it.

    Attributes:
        right: share of the pieces of which the likeliest is the right one.
        choices: the number of equally likely pieces that would leave the model as unsure (its perplexity).
        text: the first test row; letters of pieces that were not guessed are hidden.
    """

    pieces: int
    right: float
    choices: float
    text: str


HIDDEN = "·"


def guesses(model: LoadedModel, task: Task) -> Guesses:
    """Guess every scored piece of a text task's test rows."""
    import torch

    hits: list[bool] = []
    first: list[int] = []
    nll = 0.0
    for batch in cast("Iterator[Batch]", task.batches("test")):
        first = first or batch.target[: batch.lengths[0]].tolist()
        at = 0
        with torch.inference_mode():
            for logits in model.scored_logits(batch):
                wanted = batch.target[at : at + len(logits)].to(logits.device)
                hits += (logits.argmax(dim=1) == wanted).tolist()
                nll += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
                at += len(logits)
    text = "".join(_letters(model, token, hit) for token, hit in zip(first, hits, strict=False))
    return Guesses(len(hits), sum(hits) / len(hits), math.exp(nll / len(hits)), text)


def _letters(model: LoadedModel, token: int, guessed: bool) -> str:
    piece = model.tokenizer.decode([token])
    return piece if guessed else "".join(letter if letter.isspace() else HIDDEN for letter in piece)
