"""Classes told apart by label sentences: one sentence a class, and a text belongs where it is most similar.

The label sentences go through the model in the same forward as the texts, under the same displaced weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forq.tasks.rows.sentences import Texts, hidden, mean_vectors


@dataclass(frozen=True, slots=True)
class Similarity:
    """Reads classes off mean token vectors.

    Attributes:
        labels: tokens of each class's sentence.
        temperature: what cosines are divided by before the softmax.
    """

    labels: tuple[tuple[int, ...], ...]
    temperature: float

    def learned(self, tokens: Sequence[int]) -> tuple[bool, ...]:
        """None: the class is told by the mean of all of them."""
        return (False,) * len(tokens)

    def logits(self, model: nn.Module, batch: Texts) -> Tensor:
        """``cos(text, label sentence) / temperature``: fp32 [rows, classes]."""
        rows = len(batch.lengths)
        states = _with(self.labels, batch)
        vectors = mean_vectors(hidden(model, states), states.lengths)
        return vectors[:rows] @ vectors[rows:].T / self.temperature


def _with(more: Sequence[tuple[int, ...]], batch: Texts) -> Texts:
    """The batch with further rows behind it, which have no label."""
    rows = [*batch.input_ids, *(torch.tensor(row) for row in more)]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Texts(ids, (*batch.lengths, *map(len, more)), batch.labels)
