"""Classification of texts by an encoder: how rows become batches, losses and scores.

The objective is the cross-entropy over what a reader makes of the hidden states: similarity to label sentences
(:mod:`forq.tasks.kinds.similarity`), or the words at a mask (:mod:`forq.tasks.kinds.mask`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from forq.tasks.objectives.rewarded import Answer
from forq.tasks.rows.rows import Rows, counts
from forq.tasks.rows.segments import Segment
from forq.tasks.rows.sentences import Texts, only, texts
from forq.tokens.batches import cut


class Reader(Protocol):
    """What turns a batch into logits of the classes."""

    def logits(self, model: nn.Module, batch: Texts) -> Tensor:
        """fp32 [rows, classes]."""
        ...

    def learned(self, tokens: Sequence[int]) -> tuple[bool, ...]:
        """For every token of a text, whether a word is predicted in its place."""
        ...


class Row(NamedTuple):
    """A text in tokens with its class, and how many tokens a limit took from it."""

    tokens: tuple[int, ...]
    label: int
    cut: int = 0


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Labelled(Rows[Row, Texts]):
    """A task of texts with classes; made by :func:`forq.tasks.kinds.classify.classify`.

    Attributes:
        said: what the description tells of the reader.
    """

    reader: Reader
    said: Mapping[str, object]
    classes: int

    def details(self) -> Mapping[str, object]:
        return {
            **self.said,
            "labels": self._by_split(lambda rows: counts((row.label for row in rows), self.classes)),
        }

    def length(self, row: Row) -> int:
        return len(row.tokens)

    def lost(self, row: Row) -> int:
        return row.cut

    def segments(self, row: Row) -> tuple[Segment, ...]:
        return (Segment(row.tokens, self.reader.learned(row.tokens), f"right: {self._names[row.label]!r}"),)

    @property
    def _names(self) -> Sequence[str]:
        """Words or sentences of the classes."""
        names = self.said.get("sentences") or self.said["words"]
        assert isinstance(names, list)
        return names

    def pack(self, rows: Sequence[Row], most_tokens: int | None = None) -> Texts:
        return texts([row.tokens for row in rows], [row.label for row in rows], most_tokens)

    def measured(self, model: nn.Module, batch: Texts) -> tuple[Tensor, Tensor]:
        logits = self._logits(model, batch)
        labels = batch.labels.to(logits.device)
        return cross_entropy(logits, labels, reduction="none"), logits.argmax(dim=1) == labels

    def _logits(self, model: nn.Module, batch: Texts) -> Tensor:
        # Texts stand on common lines, so without a bound one forward pads next to nothing.
        groups = [] if batch.most_tokens is None else cut(batch.lengths, batch.most_tokens)
        if len(groups) < 2:
            return self.reader.logits(model, batch)
        found = torch.cat([self.reader.logits(model, only(batch, rows)) for rows in groups])
        order = torch.tensor([row for rows in groups for row in rows]).argsort()
        return found[order.to(found.device)]

    def answers(self, model: nn.Module, batch: Texts) -> list[Answer]:
        names = self._names
        likeliest = self._logits(model, batch).argmax(dim=1).tolist()
        found = []
        for row, (best, right) in enumerate(zip(likeliest, batch.labels.tolist(), strict=True)):
            text = self.tokenizer.decode(batch.input_ids[row, : batch.lengths[row]].tolist(), skip_special_tokens=True)
            found.append(Answer(text, names[best], {"answer": names[right], "label": right}))
        return found
