"""What each rank of a run did, from its ranks.json."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rank:
    """A rank in the latest session of a run; see :class:`forq.runs.ranks.timings.Account`."""

    device: str
    dtype: str
    kernel: str | dict[str, int | list[str]]
    threads: int
    host: str
    forwards: int
    busy: float
    idle: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Shares:
    """The ranks of a session, and the steps that they measured together."""

    steps: int
    ranks: list[Rank]

    def facts(self) -> dict[str, str]:
        """A sentence for each rank: what computes there, its share of the forward passes, idle time, bytes a step."""
        forwards = max(1, sum(rank.forwards for rank in self.ranks))
        return {
            f"rank {number}": f"{_machine(rank)}: {rank.forwards / forwards:.0%} of the forward passes, idle "
            f"{rank.idle / max(1e-9, rank.busy + rank.idle):.0%} of its time, "
            f"{rank.bytes / max(1, self.steps):,.0f} bytes a step"
            for number, rank in enumerate(self.ranks)
        }


def _machine(rank: Rank) -> str:
    kernel = ", ".join(rank.kernel) if isinstance(rank.kernel, dict) else rank.kernel
    return f"{rank.host}, {rank.device}, {rank.dtype}, kernel {kernel}, CPU threads {rank.threads}"
