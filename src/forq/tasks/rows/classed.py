"""Tasks whose rows belong to classes: the loss, the score and the description that all of them share.

A subclass turns a batch into logits of the classes. The objective is their cross-entropy.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from forq.tasks import Score
from forq.tasks.objectives.predictions import Predictions, Uniform, of_classes
from forq.tasks.rows.rows import Marks, Rows, counts


class Classified(Protocol):
    """A row with a class."""

    @property
    def label(self) -> int: ...


class WithLabels(Protocol):
    """A batch with the class of each row, int64 [rows]."""

    @property
    def labels(self) -> Tensor | None: ...


R = TypeVar("R", bound=Classified)
B = TypeVar("B", bound=WithLabels)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Classed(Rows[R, B]):
    """The common part of tasks whose rows have classes.

    Attributes:
        description: how the class is read from the model, for the task's description and its digest.
        classes: number of classes.
        names: the names of the classes; if there are any, a score has macro F1 and a confusion matrix.
        further: more entries for the description; batches do not depend on them.
    """

    description: Mapping[str, object]
    classes: int
    names: tuple[str, ...] = ()
    further: Mapping[str, object] = field(default_factory=dict)

    @abstractmethod
    def logits(self, model: nn.Module, batch: B) -> Tensor:
        """Logits of the classes: fp32 [rows, classes]."""

    @property
    @abstractmethod
    def called(self) -> Sequence[str]:
        """What the model answers for each class: its word, or its label sentence."""

    def details(self) -> Mapping[str, object]:
        return {
            **self.description,
            "labels": self._by_split(lambda rows: counts((row.label for row in rows), self.classes)),
            "balanced": self.by_class is not None,
            **({"names": list(self.names)} if self.names else {}),
            **self.further,
        }

    def measured(self, model: nn.Module, batch: B) -> tuple[Tensor, Marks]:
        nll, logits, labels = self._scored(model, batch)
        return nll, Marks(logits.argmax(dim=1), labels)

    def predictions(self, model: nn.Module, batch: B, at: Predictions | None, uniform: Uniform) -> Predictions:
        with torch.inference_mode():
            nll, logits, _ = self._scored(model, batch)
            return of_classes(nll, logits)

    def counted(self, score: Score, marks: Sequence[Marks]) -> Score:
        if not self.names:
            return score
        matrix = confusion(marks, self.classes)
        metrics = {**score.metrics, "macro_f1": macro_f1(matrix)}
        return replace(score, metrics=metrics, confusion=tuple(map(tuple, matrix)))

    def _scored(self, model: nn.Module, batch: B) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of the rows, logits of the classes, and the right classes."""
        logits = self.logits(model, batch)
        assert batch.labels is not None
        labels = batch.labels.to(logits.device)
        return cross_entropy(logits, labels, reduction="none"), logits, labels


def confusion(marks: Sequence[Marks], classes: int) -> list[list[int]]:
    """The number of rows by right class (first index) and by the class that the model chose."""
    matrix = [[0] * classes for _ in range(classes)]
    for best, label in marks:
        for chosen, right in zip(best.tolist(), label.tolist(), strict=True):
            matrix[right][chosen] += 1
    return matrix


def macro_f1(matrix: Sequence[Sequence[int]]) -> float:
    """The mean of the classes' F1, over the classes that have rows or were chosen.

    Example:
        >>> macro_f1([[2, 0], [1, 1]])
        0.7333333333333334
    """
    scores = []
    for place, row in enumerate(matrix):
        chosen, rows = sum(other[place] for other in matrix), sum(row)
        if chosen + rows:
            scores.append(2 * row[place] / (chosen + rows))
    return sum(scores) / len(scores)
