"""Confusion matrices of a run's test rows: which class is taken for which, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forq.report.record import Record

_MOST = 30
"""Classes in a matrix on the page; more would not fit."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The rows of one class that were taken for one class.

    Attributes:
        depth: their share of the rows of the right class, in percent.
    """

    count: int
    depth: int
    right: bool


@dataclass(frozen=True, slots=True)
class Matrix:
    """A confusion matrix; a row for each right class.

    Attributes:
        when: ``before`` or ``after``.
        names: the classes.
        rows: the name of the right class, and a cell for each class that was chosen.
    """

    when: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def matrices(records: Sequence[Record]) -> list[Matrix]:
    """The matrices before and after, summed over runs of the same classes; none for other tasks or too many classes."""
    found = [record.result.confusion for record in records if record.result is not None]
    known = [each for each in found if each is not None]
    if not known or len(known) < len(records) or any(each.names != known[0].names for each in known):
        return []
    if len(known[0].names) > _MOST:
        return []
    return [
        _matrix("before", known[0].names, [each.before for each in known]),
        _matrix("after", known[0].names, [each.after for each in known]),
    ]


def _matrix(when: str, names: Sequence[str], counts: Sequence[Sequence[Sequence[int]]]) -> Matrix:
    rows = []
    for right, name in enumerate(names):
        sums = [sum(matrix[right][chosen] for matrix in counts) for chosen in range(len(names))]
        total = max(1, sum(sums))
        cells = (Cell(count, round(100 * count / total), chosen == right) for chosen, count in enumerate(sums))
        rows.append((name, tuple(cells)))
    return Matrix(when, tuple(names), tuple(rows))
