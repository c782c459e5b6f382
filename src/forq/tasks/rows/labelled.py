"""Classification of texts by an encoder: how rows become batches, losses and scores.

A reader turns hidden states into logits of the classes, and the objective is their cross-entropy. It
compares the text with label sentences (:mod:`forq.tasks.kinds.similarity`), or scores words at a mask
(:mod:`forq.tasks.kinds.mask`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from forq.tasks.objectives.predictions import Predictions, Uniform, of_classes
from forq.tasks.objectives.rewarded import Answer
from forq.tasks.rows.rows import Rows, counts
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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Labelled(Rows[Row, Texts]):
    """A task of texts with classes; made by :func:`forq.tasks.kinds.classify.classify`.

    Attributes:
        reader: turns a batch into logits.
        description: the reader's entries in the task's description.
        classes: number of classes.
    """

    reader: Reader
    description: Mapping[str, object]
    classes: int

    def details(self) -> Mapping[str, object]:
        return {
            **self.description,
            "labels": self._by_split(lambda rows: counts((row.label for row in rows), self.classes)),
            "balanced": self.by_class is not None,
        }

    def length(self, row: Row) -> int:
        return len(row.tokens)

    def lost(self, row: Row) -> int:
        return row.cut

    def segments(self, row: Row) -> tuple[Segment, ...]:
        return (Segment(row.tokens, self.reader.learned(row.tokens), f"right: {self._names[row.label]!r}"),)

    @property
    def _names(self) -> Sequence[str]:
        """The word or the label sentence of each class."""
        names = self.description.get("sentences") or self.description["words"]
        assert isinstance(names, list)
        return names

    def pack(self, rows: Sequence[Row], most_tokens: int | None = None) -> Texts:
        return texts([row.tokens for row in rows], [row.label for row in rows], most_tokens)

    def measured(self, model: nn.Module, batch: Texts) -> tuple[Tensor, Tensor]:
        logits = self._logits(model, batch)
        labels = batch.labels.to(logits.device)
        return cross_entropy(logits, labels, reduction="none"), logits.argmax(dim=1) == labels

    def predictions(self, model: nn.Module, batch: Texts, at: Predictions | None, uniform: Uniform) -> Predictions:
        with torch.inference_mode():
            logits = self._logits(model, batch)
            return of_classes(cross_entropy(logits, batch.labels.to(logits.device), reduction="none"), logits)

    def _logits(self, model: nn.Module, batch: Texts) -> Tensor:
        # Short texts share a line, so a single forward has almost no padding; only a token bound splits the batch.
        groups = [] if batch.most_tokens is None else cut(batch.lengths, batch.most_tokens)
        if len(groups) < 2:
            return self.reader.logits(model, batch)
        logits = torch.cat([self.reader.logits(model, only(batch, rows)) for rows in groups])
        order = torch.tensor([row for rows in groups for row in rows]).argsort()
        return logits[order.to(logits.device)]

    def answers(self, model: nn.Module, batch: Texts) -> list[Answer]:
        names = self._names
        likeliest = self._logits(model, batch).argmax(dim=1).tolist()
        answers = []
        for row, (best, right) in enumerate(zip(likeliest, batch.labels.tolist(), strict=True)):
            text = self.tokenizer.decode(batch.input_ids[row, : batch.lengths[row]].tolist(), skip_special_tokens=True)
            answers.append(Answer(text, names[best], {"answer": names[right], "label": right}))
        return answers
