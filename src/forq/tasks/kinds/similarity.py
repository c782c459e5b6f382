"""Classification by similarity: each class has a label sentence, and a text belongs to the nearest.

The label sentences go through the model in the same forward as the texts, with the same displaced
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from forq.errors import ConfigError
from forq.tasks import Tokenizer
from forq.tasks.kinds.examples import NEWEST, Example, Reading
from forq.tasks.rows.labelled import Row
from forq.tasks.rows.pooling import text_vectors
from forq.tasks.rows.sentences import Texts, hidden
from forq.tokens.model import Pooling
from forq.tokens.text import bare, frame, keeps_end, shortened, unframed


@runtime_checkable
class Pools(Protocol):
    """A model that says how the vector of a text is made."""

    @property
    def pooling(self) -> tuple[Pooling, ...]: ...


@dataclass(frozen=True, slots=True)
class Similarity:
    """Reads the class from the vector of a text; the model says how that is made, or it is the mean of its tokens.

    Attributes:
        labels: tokens of each class's label sentence.
        temperature: divisor of the cosines before the softmax.
    """

    labels: tuple[tuple[int, ...], ...]
    temperature: float

    def learned(self, tokens: Sequence[int]) -> tuple[bool, ...]:
        """False for every token: the class depends on all of them."""
        return (False,) * len(tokens)

    def logits(self, model: nn.Module, batch: Texts) -> Tensor:
        """``cos(text, label sentence) / temperature``: fp32 [rows, classes]."""
        rows = len(batch.lengths)
        states = _with_labels(self.labels, batch)
        pooling = model.pooling if isinstance(model, Pools) else ("mean",)
        vectors = text_vectors(hidden(model, states), states.lengths, pooling)
        return vectors[:rows] @ vectors[rows:].T / self.temperature


def _with_labels(labels: Sequence[tuple[int, ...]], batch: Texts) -> Texts:
    """The batch, followed by the label sentences as further rows; these have no label."""
    rows = [*batch.input_ids, *(torch.tensor(row) for row in labels)]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Texts(ids, (*batch.lengths, *map(len, labels)), batch.labels)


class Bare:
    """Encodes plain texts and one label sentence per class; a text that is too long loses its end.

    With the tokenizer's ``truncation_side`` left it loses its beginning, as in transformers.

    Args:
        sentences: one label sentence per class.
        temperature: divisor of the cosines, > 0.
        reading: the law of the rows.

    Raises:
        ConfigError: ``max_length`` does not hold a label sentence.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        sentences: tuple[str, ...],
        temperature: float,
        max_length: int,
        reading: Reading = NEWEST,
    ) -> None:
        self.tokenizer, self.reading = tokenizer, reading
        self.front, self.back = frame(tokenizer)
        self.keeps_end = reading > 2 and keeps_end(tokenizer)
        self.part = f"the {'beginning' if self.keeps_end else 'end'} of the text"
        self.room = max_length - len(self.front) - len(self.back)
        labels = tuple(self._framed(bare(tokenizer, sentence)) for sentence in sentences)
        self.reader = Similarity(labels, temperature)
        self.description: dict[str, object] = {
            "by": "similarity",
            "sentences": list(sentences),
            "temperature": temperature,
        }
        least = max(map(len, labels))
        if max_length < least:
            raise ConfigError(f"max_length must be {least} or more for {sentences}, found {max_length}")

    def row(self, example: Example) -> Row:
        """The tokens of an example."""
        # Two texts are joined by forq, so only one has white space of its own around it.
        text = example.plain[0] if self.reading > 1 and len(example.plain) == 1 else example.text
        tokens = unframed(bare(self.tokenizer, text), self.front, self.back)
        inner = shortened(tokens, self.room, keeps_end=self.keeps_end)
        return Row(self._framed(inner), example.label, len(tokens) - len(inner))

    def _framed(self, tokens: list[int]) -> tuple[int, ...]:
        return (*self.front, *tokens, *self.back)
