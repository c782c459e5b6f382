"""What the ranks did and what it took them; the chief keeps it, deals by it, and writes it into ranks.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from forq.errors import RunError
from forq.runs.ranks import schedule

FILE = "ranks.json"
"""File of a run's folder with a row for each rank of the latest session, for people and the report."""

RECENT = 9
"""Steps whose median is a rank's time for a forward pass."""

_NOT_FINITE = 3
"""This many steps in a row in which only one rank has no finite loss end the run."""


@dataclass(slots=True)
class Account:
    """What a rank did in this session.

    Attributes:
        forwards: forward passes of probes, the point itself counted on every rank that measured it.
        busy, idle: seconds that it measured, and that it waited for others to measure.
        sent: bytes that it exchanged with the chief in steps; of the chief, with all others.
        times: seconds for a forward pass in the latest steps.
        bad: steps in a row in which this rank alone had no finite loss.
    """

    forwards: int = 0
    busy: float = 0.0
    idle: float = 0.0
    sent: int = 0
    times: list[float] = field(default_factory=list)
    bad: int = 0


class Timings:
    """The accounts of all ranks.

    Attributes:
        steps: steps that were measured together.
        slowest: seconds for a forward pass of the slowest rank in the latest step.
    """

    def __init__(self, size: int) -> None:
        self.accounts = [Account() for _ in range(size)]
        self.steps = 0
        self.slowest = 0.0

    def note(
        self,
        busy: Sequence[float],
        forwards: Sequence[int],
        sent: Sequence[int],
        wall: float,
        *,
        timed: bool = True,
    ) -> None:
        """Add a step: for each rank the seconds it measured, its forward passes and its bytes; and the step's time.

        Args:
            timed: the forward passes were whole, so that they say how fast a rank is.
        """
        self.steps += 1
        self.slowest = max(seconds / max(1, count) for seconds, count in zip(busy, forwards, strict=True))
        for place, account in enumerate(self.accounts):
            account.forwards += forwards[place]
            account.busy += busy[place]
            account.idle += max(0.0, wall - busy[place])
            account.sent += sent[place]
            if timed and forwards[place]:
                account.times = [*account.times[1 - RECENT :], busy[place] / forwards[place]]

    def redealt(self, before: Sequence[float], probes: int, chief: int, *, from_point: bool) -> list[float] | None:
        """Times by which to deal the next steps, if that makes them shorter; None: go on as before.

        Args:
            before: the times in force.
        """
        if any(len(account.times) < 2 for account in self.accounts):  # the first forward pass warms up
            return None
        now = [median(account.times) for account in self.accounts]
        old, new = (
            schedule.takes(schedule.shares(probes, seconds, chief, from_point=from_point), now, from_point=from_point)
            for seconds in (before, now)
        )
        return now if new < schedule.DRIFT * old else None

    def require_finite(self, finite: Sequence[bool | None], again: Callable[[int], bool]) -> None:
        """Refuse a rank that alone has no finite loss, step after step.

        Args:
            finite: of each rank, whether any of its losses is finite; None: it measured none.
            again: whether a loss is finite where this process measures what a rank measured.

        Raises:
            RunError: a rank had none in three steps in a row, and this process has one in its place.
        """
        for rank, account in enumerate(self.accounts):
            if finite[rank] is None:
                continue
            alone = not finite[rank] and any(finite)
            account.bad = account.bad + 1 if alone else 0
            if account.bad >= _NOT_FINITE and again(rank):
                raise RunError(
                    f"rank {rank} answered no finite loss in {_NOT_FINITE} steps in a row, while other ranks did: its "
                    "device, kernel or memory is at fault; leave it out"
                )

    def rows(self, facts: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
        """A row for each rank: what computes there, its share of the forward passes, its seconds and bytes."""
        return [
            {
                **facts[rank],
                "forwards": account.forwards,
                "busy": round(account.busy, 3),
                "idle": round(account.idle, 3),
                "bytes": account.sent,
            }
            for rank, account in enumerate(self.accounts)
        ]
