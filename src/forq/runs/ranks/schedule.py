"""Which rank measures what. Dealing changes how long a step takes, never what it decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

DRIFT = 0.9
"""A new deal must shorten a step to this share of it; measured times scatter by a few per cent."""


def turns(seconds: Sequence[float], ahead: Sequence[int]) -> Iterator[int]:
    """The rank that takes each unit, without end, so that the last is done soonest; ties go to the lower rank.

    Args:
        seconds: a unit takes each rank so long.
        ahead: units that each rank has to do besides.

    Example:
        >>> list(islice(turns([1.0, 1.0], [0, 0]), 5)), list(islice(turns([1.0, 2.0], [0, 0]), 5))
        ([0, 1, 0, 1, 0], [0, 0, 1, 0, 0])
    """
    done = list(ahead)
    while True:
        ends = [(count + 1) * each for count, each in zip(done, seconds, strict=True)]
        owner = min(range(len(ends)), key=lambda rank: (ends[rank], rank))
        done[owner] += 1
        yield owner


def shares(
    probes: int, seconds: Sequence[float], chief: int, *, from_point: bool, pairs: bool = False
) -> list[list[int]]:
    """The places of the probes that each rank measures; the chief's come first, and it has the point itself.

    Args:
        from_point: every rank that measures any probe measures the point itself too.
        pairs: two probes that belong together go to one rank.

    Example:
        >>> shares(9, [1.0, 1.0], 0, from_point=True)
        [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    """
    order = [chief, *(rank for rank in range(len(seconds)) if rank != chief)]
    size = 2 if pairs else 1
    first = 1 if from_point else 0
    ahead = [first] * len(order)
    owners = list(islice(turns([seconds[rank] for rank in order], ahead), (probes - first) // size))
    dealt: list[list[int]] = [[] for _ in seconds]
    place = first
    for turn, rank in enumerate(order):
        count = owners.count(turn) * size
        dealt[rank] = list(range(place, place + count))
        place += count
    dealt[chief] = [*range(first), *dealt[chief]]
    return dealt


def teams(probes: int, ranks: int, chief: int) -> list[tuple[int, int, int]]:
    """Where there are more ranks than probes: each rank's probe, its turn in the probe's rows, and the turns of that.

    Example:
        >>> teams(2, 3, 0)
        [(0, 0, 2), (1, 0, 1), (0, 1, 2)]
    """
    order = [chief, *(rank for rank in range(ranks) if rank != chief)]
    dealt = [(0, 0, 0)] * ranks
    for turn, rank in enumerate(order):
        place = turn % probes
        dealt[rank] = (place, turn // probes, len(range(place, ranks, probes)))
    return dealt


def takes(dealt: Sequence[Sequence[int]], seconds: Sequence[float], *, from_point: bool) -> float:
    """How long a step with these shares takes."""
    return max(
        (len(share) + (from_point and bool(share) and share[0] != 0)) * each
        for share, each in zip(dealt, seconds, strict=True)
    )
