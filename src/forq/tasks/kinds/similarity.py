"""Classification by similarity: each class has a label sentence, and a text belongs to the nearest.

The label sentences go through the model in the same forward as the texts, with the same displaced
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forq.tasks.rows.sentences import Texts, hidden, mean_vectors


@dataclass(frozen=True, slots=True)
class Similarity:
    """Reads the class from the mean of a text's token vectors.

    Attributes:
        labels: tokens of each class's label sentence.
        temperature: divisor of the cosines before the softmax.
    """

    labels: tuple[tuple[int, ...], ...]
    temperature: float

    def learned(self, tokens: Sequence[int]) -> tuple[bool, ...]:
        """False for every token: the class depends on the mean over all tokens."""
        return (False,) * len(tokens)

    def logits(self, model: nn.Module, batch: Texts) -> Tensor:
        """``cos(text, label sentence) / temperature``: fp32 [rows, classes]."""
        rows = len(batch.lengths)
        states = _with_labels(self.labels, batch)
        vectors = mean_vectors(hidden(model, states), states.lengths)
        return vectors[:rows] @ vectors[rows:].T / self.temperature


def _with_labels(labels: Sequence[tuple[int, ...]], batch: Texts) -> Texts:
    """The batch, followed by the label sentences as further rows; these have no label."""
    rows = [*batch.input_ids, *(torch.tensor(row) for row in labels)]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Texts(ids, (*batch.lengths, *map(len, labels)), batch.labels)
