"""Splits in which every class has its share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forq.errors import ConfigError, DataError
from forq.tasks import Split
from forq.tasks.rows.order import draw

_HELD_OUT: tuple[Split, ...] = ("validation", "test")
_SHARE = 10
"""A split without a file of its own takes one training row in this many."""


def stratified(
    known: Mapping[Split, Sequence[int]],
    *,
    seed: int,
    digest: str,
    limits: Mapping[Split, int | None],
) -> dict[Split, list[tuple[Split, int]]]:
    """Where the rows of each split lie: the split of the file, and the row's number in it.

    A split without a file of its own is drawn from the training rows, one in ten, with as many rows of
    each class as its share is, up to one row; at least one row of each class stays for training. A
    limit on training rows keeps the shares too. Other splits keep their file's order, and a limit draws
    rows of them, with every class's share: many files list one class after the other.

    Args:
        known: the class of each row, by split of the file; there are training rows.

    Raises:
        ConfigError: a limit is below 1.
        DataError: there are too few rows.
    """
    if any(limit is not None and limit < 1 for limit in limits.values()):
        raise ConfigError(f"splits need 1 row or more, found {dict(limits)}")
    labels = known["train"]
    rest = [int(row) for row in draw(len(labels), len(labels), seed=seed, digest=digest)]
    found: dict[Split, list[tuple[Split, int]]] = {}
    for split in _HELD_OUT:
        if split in known:
            found[split] = [(split, row) for row in _kept(known[split], limits[split], seed, digest)]
            continue
        size = min(limits[split] or len(labels), max(1, len(labels) // _SHARE))
        picked, rest = _taken(labels, rest, size, left=1)
        found[split] = [("train", row) for row in picked]
    if (most := limits["train"]) is not None and most < len(rest):
        rest, _ = _taken(labels, rest, most, left=0)
    if not rest or not all(found.values()):
        raise DataError(
            f"expected rows for training, validation and test, found {len(labels)} in all, and too few of a class to "
            "share; add rows"
        )
    return {"train": [("train", row) for row in rest], **found}


def _kept(labels: Sequence[int], most: int | None, seed: int, digest: str) -> list[int]:
    """The rows of a split with a file of its own, in the file's order."""
    if most is None or most >= len(labels):
        return list(range(len(labels)))[:most]
    rows = [int(row) for row in draw(len(labels), len(labels), seed=seed, digest=f"{digest} held out")]
    return sorted(_taken(labels, rows, most, left=0)[0])


def _taken(labels: Sequence[int], rows: Sequence[int], size: int, *, left: int) -> tuple[list[int], list[int]]:
    """``size`` of the rows with every class's share of them, and the others; both in the order of the rows.

    Args:
        left: number of rows of each class that are not taken.
    """
    counts: dict[int, int] = {}
    for row in rows:
        counts[labels[row]] = counts.get(labels[row], 0) + 1
    quota = _shares(counts, size, left)
    taken, others = list[int](), list[int]()
    for row in rows:
        if quota[labels[row]]:
            quota[labels[row]] -= 1
            taken.append(row)
        else:
            others.append(row)
    return taken, others


def _shares(counts: Mapping[int, int], size: int, left: int) -> dict[int, int]:
    """Rows of each class in a part, by largest remainders."""
    total = sum(counts.values())
    exact = {label: size * count / total for label, count in counts.items()}
    quota = {label: min(int(share), max(0, counts[label] - left)) for label, share in exact.items()}
    by_remainder = sorted(counts, key=lambda label: (int(exact[label]) - exact[label], label))
    while sum(quota.values()) < size:
        spare = [label for label in by_remainder if quota[label] < counts[label] - left]
        if not spare:
            break
        for label in spare[: size - sum(quota.values())]:
            quota[label] += 1
    return quota
