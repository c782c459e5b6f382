"""Which rows of the data each split takes: what limits leave out, and data of which all rows are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import TypeVar

from forq.tasks import Split

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Whole:
    """Data that is only scored: where it names no splits, all its rows are test rows, and none are drawn.

    Attributes:
        most: number of rows that was asked for (``task.test_rows``); None: all.
    """

    most: int | None = None

    def of(self, known: Mapping[Split, Sequence[T]]) -> dict[Split, list[T]] | None:
        """All rows, as the test split; None where the data names splits of its own."""
        return {"test": list(known["train"][: self.most])} if known.keys() == {"train"} else None


@dataclass(frozen=True, slots=True)
class Taken:
    """What the splits of a task leave of its data.

    Attributes:
        left: number of rows of each split that its limit leaves out.
        drawn: splits without rows of their own, which took some of the training rows.
    """

    left: Mapping[Split, int] = field(default_factory=dict)
    drawn: tuple[Split, ...] = ()

    def plain(self) -> dict[str, object]:
        """Entries for the task's description."""
        left = {"left": dict(self.left)} if self.left else {}
        return left | ({"drawn": list(self.drawn)} if self.drawn else {})


def taken(known: Mapping[Split, int], chosen: Mapping[Split, int]) -> Taken:
    """What is left of the data.

    Args:
        known: number of rows of each split of the data, before any are drawn; there are training rows.
        chosen: number of rows that each split of the task takes.

    Example:
        >>> taken({"train": 100, "test": 30}, {"train": 50, "validation": 10, "test": 30})
        Taken(left={'train': 40}, drawn=('validation',))
    """
    if "train" not in chosen:  # all rows of the data are test rows
        drawn: tuple[Split, ...] = ()
        rest: dict[Split, int] = {"test": known["train"] - chosen["test"]}
    else:
        drawn = tuple(split for split in chosen if split not in known)
        rest = {split: count - chosen[split] for split, count in known.items()}
        rest["train"] -= sum(chosen[split] for split in drawn)
    return Taken({split: count for split, count in rest.items() if count}, drawn)


def sizes(splits: Mapping[Split, Sized]) -> dict[Split, int]:
    """The number of rows of each split."""
    return {split: len(rows) for split, rows in splits.items()}
