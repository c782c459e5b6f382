"""Classification of texts by an encoder: how rows become batches, losses and scores.

The objective is the cross-entropy over what a reader makes of the hidden states: similarity to label sentences
(:mod:`forq.tasks._similarity`), or the words at a mask (:mod:`forq.tasks._mask`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from forq.core import ConfigError
from forq.tasks import Score, Split, Tokenizer
from forq.tasks._order import rows_of
from forq.tasks._rewarded import Answer
from forq.tasks._sentences import Texts, texts


class Reader(Protocol):
    """What turns a batch into logits of the classes."""

    def logits(self, model: nn.Module, batch: Texts) -> Tensor:
        """fp32 [rows, classes]."""
        ...


class Row(NamedTuple):
    """A text in tokens with its class, and how many tokens a limit took from it."""

    tokens: tuple[int, ...]
    label: int
    cut: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A task of texts with classes; made by :func:`forq.tasks._classify.classify`.

    Attributes:
        said: what the description tells of the reader.
    """

    name: str
    reader: Reader
    said: Mapping[str, Any]
    classes: int
    rows: Mapping[Split, tuple[Row, ...]]
    seed: int
    max_length: int
    batch_rows: int
    digest: str
    tokenizer: Tokenizer

    def describe(self) -> Mapping[str, Any]:
        every = self.rows.items()
        return {
            "task": self.name,
            **self.said,
            "rows": {split: len(rows) for split, rows in every},
            "tokens": {split: sum(len(row.tokens) for row in rows) for split, rows in every},
            "truncated": {split: sum(row.cut > 0 for row in rows) for split, rows in every},
            "labels": {split: self._counts(rows) for split, rows in every},
            "max_length": self.max_length,
            "batch_rows": self.batch_rows,
            "digest": self.digest,
        }

    def batch(self, step: int) -> Texts:
        rows = self.rows["train"]
        picked = rows_of(step, rows=len(rows), batch_rows=self.batch_rows, seed=self.seed, digest=self.digest)
        return _pack([rows[index] for index in picked])

    def batches(self, split: Split, limit: int | None = None) -> Iterator[Texts]:
        rows = sorted(self.rows[split][:limit], key=lambda row: len(row.tokens))
        for start in range(0, len(rows), self.batch_rows):
            yield _pack(rows[start : start + self.batch_rows])

    def loss(self, model: nn.Module, batch: Texts) -> float:
        with torch.inference_mode():
            return float(self.loss_tensor(model, batch))

    def loss_tensor(self, model: nn.Module, batch: Texts) -> Tensor:
        logits = self.reader.logits(model, batch)
        return cross_entropy(logits, batch.labels.to(logits.device))

    def evaluate(self, model: nn.Module, split: Split, limit: int | None = None) -> Score:
        total, right, rows = 0.0, 0, 0
        with torch.inference_mode():
            for batch in self.batches(split, limit):
                logits = self.reader.logits(model, batch)
                labels = batch.labels.to(logits.device)
                total += float(cross_entropy(logits, labels, reduction="none").double().sum())
                right += int((logits.argmax(dim=1) == labels).sum())
                rows += len(labels)
        if rows == 0:
            raise ConfigError(f"limit must leave at least one row to evaluate, found {limit}")
        return Score(total / rows, rows, {"accuracy": right / rows}, main="accuracy")

    def answers(self, model: nn.Module, batch: Texts) -> list[Answer]:
        names = self.said.get("sentences") or self.said["words"]
        likeliest = self.reader.logits(model, batch).argmax(dim=1).tolist()
        found = []
        for row, (best, right) in enumerate(zip(likeliest, batch.labels.tolist(), strict=True)):
            text = self.tokenizer.decode(batch.input_ids[row, : batch.lengths[row]].tolist(), skip_special_tokens=True)
            found.append(Answer(text, names[best], {"answer": names[right], "label": right}))
        return found

    def _counts(self, rows: tuple[Row, ...]) -> list[int]:
        labels = [row.label for row in rows]
        return [labels.count(label) for label in range(self.classes)]


def _pack(rows: list[Row]) -> Texts:
    return texts([row.tokens for row in rows], [row.label for row in rows])
