"""What a model guesses of unseen text, in numbers that need no explanation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from forq.models.loaded import LoadedModel
    from forq.tasks import Task


@dataclass(frozen=True, slots=True)
class Guesses:
    """The guesses of a model on the test text; each piece (token) is guessed from the true text before it.

    Attributes:
        right: share of the pieces of which the likeliest is the right one.
        choices: the number of equally likely pieces that would leave the model as unsure (its perplexity).
    """

    pieces: int
    right: float
    choices: float


def guesses(model: LoadedModel, task: Task) -> Guesses:
    """Guess every scored piece of a text task's test rows."""
    import torch

    from forq.tokens.batches import Batch

    right, pieces, nll = 0, 0, 0.0
    for batch in task.batches("test"):
        target = cast(Batch, batch).target
        at = 0
        with torch.inference_mode():
            for logits in model.scored_logits(batch):
                wanted = target[at : at + len(logits)].to(logits.device)
                right += int((logits.argmax(dim=1) == wanted).sum())
                nll += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
                at += len(logits)
        pieces += at
    return Guesses(pieces, right / pieces, math.exp(nll / pieces))
