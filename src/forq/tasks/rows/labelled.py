"""Classification of texts by an encoder: how rows become batches, losses and scores.

A reader turns hidden states into logits of the classes, and the objective is their cross-entropy. It
compares the text with label sentences (:mod:`forq.tasks.kinds.similarity`), scores words at a mask
(:mod:`forq.tasks.kinds.mask`), or asks the model's own head (:mod:`forq.tasks.kinds.head`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from forq.tasks.kinds.examples import Example
from forq.tasks.objectives.rewarded import Answer
from forq.tasks.rows.classed import Classed
from forq.tasks.rows.segments import Segment
from forq.tasks.rows.sentences import Texts, only, texts
from forq.tokens.batches import cut


class Reader(Protocol):
    """Turns a batch into logits of the classes."""

    def logits(self, model: nn.Module, batch: Texts) -> Tensor:
        """Logits of the classes: fp32 [rows, classes]."""
        ...

    def learned(self, tokens: Sequence[int]) -> tuple[bool, ...]:
        """For each token of a text, whether the model predicts a word there."""
        ...


class Row(NamedTuple):
    """A text in tokens, its class, and the number of tokens it lost to ``max_length``."""

    tokens: tuple[int, ...]
    label: int
    cut: int = 0


class Pair(NamedTuple):
    """Two texts in tokens: as a :class:`Row`, and the place where tokens of type 1 begin."""

    tokens: tuple[int, ...]
    label: int
    cut: int
    second: int


class Encoding(Protocol):
    """Turns examples into rows, and says how their class is read.

    Attributes:
        part: the part a row loses if it is too long, in words.
    """

    @property
    def reader(self) -> Reader: ...
    @property
    def description(self) -> Mapping[str, object]: ...
    @property
    def part(self) -> str: ...
    def row(self, example: Example) -> Row | Pair: ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Labelled(Classed[Row | Pair, Texts]):
    """A task of texts with classes; made by :func:`forq.tasks.kinds.classify.classify`.

    Attributes:
        reader: turns a batch into logits.
    """

    reader: Reader

    def length(self, row: Row | Pair) -> int:
        return len(row.tokens)

    def lost(self, row: Row | Pair) -> int:
        return row.cut

    def segments(self, row: Row | Pair) -> tuple[Segment, ...]:
        return (Segment(row.tokens, self.reader.learned(row.tokens), f"right: {self.called[row.label]!r}"),)

    @property
    def called(self) -> Sequence[str]:
        if "names" in self.description and self.names:  # a head's own names may say nothing: LABEL_0, LABEL_1
            return self.names
        names = next(self.description[key] for key in ("sentences", "words", "names") if key in self.description)
        assert isinstance(names, list)
        return names

    def pack(self, rows: Sequence[Row | Pair], most_tokens: int | None = None) -> Texts:
        second = [row.second if isinstance(row, Pair) else len(row.tokens) for row in rows]
        return texts([row.tokens for row in rows], [row.label for row in rows], most_tokens, second)

    def logits(self, model: nn.Module, batch: Texts) -> Tensor:
        # Short texts share a line, so a single forward has almost no padding; only a token bound splits the batch.
        groups = [] if batch.most_tokens is None else cut(batch.lengths, batch.most_tokens)
        if len(groups) < 2:
            return self.reader.logits(model, batch)
        logits = torch.cat([self.reader.logits(model, only(batch, rows)) for rows in groups])
        order = torch.tensor([row for rows in groups for row in rows]).argsort()
        return logits[order.to(logits.device)]

    def answers(self, model: nn.Module, batch: Texts) -> list[Answer]:
        names = self.called
        likeliest = self.logits(model, batch).argmax(dim=1).tolist()
        answers = []
        for row, (best, right) in enumerate(zip(likeliest, batch.labels.tolist(), strict=True)):
            text = self.tokenizer.decode(batch.input_ids[row, : batch.lengths[row]].tolist(), skip_special_tokens=True)
            answers.append(Answer(text, names[best], {"answer": names[right], "label": right}))
        return answers
