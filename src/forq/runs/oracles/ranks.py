"""An oracle of several processes: each measures some probes of a step, and all get the same answers."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forq.coordinates.space import Space
from forq.errors import RunError
from forq.runs.divided import Divided, Numbers
from forq.runs.ranks import packing, rows, schedule
from forq.scalars.losses import Losses
from forq.scalars.moves import Move

if TYPE_CHECKING:
    from forq.runs.ranks.team import Team

_UP = struct.Struct("<IQdI")
"""In front of a rank's parts: the step, its checksum of the masters, seconds that it measured, forward passes."""

_DOWN = struct.Struct("<Id")
"""In front of the answers: bytes of new times by rank (0: none), and the slowest rank's time for a forward pass."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Deals the probes of a step to the ranks of a team.

    The chief puts the parts in the order of the probes and joins them, as one process would; what it tells is what
    every rank decides by. A rank also sends a checksum of its masters, so that a replica that differs is known one
    step later.

    In a mixed team, kernels disagree about the level of a loss. So each rank measures the point itself too, where the
    step's first probe is the point, and sends differences; where a step has pairs of probes, a pair stays together.

    Attributes:
        own: measures with this process's model.
        space: this process's coordinates.

    Raises:
        RunError: replicas differ, or a rank alone has no finite losses.
    """

    team: Team
    own: Divided
    space: Space

    def __call__(self, step: int, probes: Sequence[Move]) -> Sequence[Losses]:
        team, began = self.team, time.perf_counter()
        anchored = team.mixed and not probes[0].terms
        pairs = team.mixed and not anchored and len(probes) % 2 == 0
        from_point = self.own.from_point or anchored
        checksum = self.space.checksum()
        if len(probes) < team.size and not (from_point or team.mixed):
            return self._by_rows(step, probes, checksum, began)
        dealt = team.shares(len(probes), from_point=from_point, pairs=pairs)
        parts, forwards, busy = self._measure(step, probes, dealt[team.rank], anchored)
        sent = _UP.pack(step, checksum, busy, forwards) + packing.pack_numbers(parts)
        bodies = team.transport.gather(sent)
        if not team.leads:
            return self._told(team.transport.tell(b""))
        losses = self._joined(step, probes, dealt, bodies, parts, anchored, began)
        timings = team.timings
        times = timings.redealt(team.seconds, len(probes), team.chief, from_point=from_point)
        fresh = b"" if times is None else struct.pack(f"<{team.size}d", *times)
        told = _DOWN.pack(len(fresh), timings.slowest) + fresh + packing.pack(losses)
        self._count(bodies, told)
        return self._told(team.transport.tell(told))

    def _by_rows(self, step: int, probes: Sequence[Move], checksum: int, began: float) -> Sequence[Losses]:
        """A step of more ranks than probes: the forward passes into which a loss cuts its batch are dealt."""
        team = self.team
        dealt = schedule.teams(len(probes), team.size, team.chief)
        with team.heartbeat.measuring():
            part, kept = rows.measure(self.own, step, probes, *dealt[team.rank])
        busy = time.perf_counter() - began
        bodies = team.transport.gather(_UP.pack(step, checksum, busy, 1) + rows.pack(part, kept))
        if not team.leads:
            return self._told(team.transport.tell(b""))
        heads = [_UP.unpack_from(body) for body in bodies]
        self._require_same(step, heads)
        found = [rows.unpack(body[_UP.size :]) for body in bodies]
        team.idle = rows.idle(dealt, found)
        parts = [rows.join(self.own, step, probes, place, dealt, found) for place in range(len(probes))]
        finite = [math.isfinite(parts[place][self.own.levels][0]) for place, _, _ in dealt]
        team.timings.require_finite(finite, lambda rank: self._finite_here(step, probes, [dealt[rank][0]]))
        self._note(heads, bodies, time.perf_counter() - began, timed=False)
        told = _DOWN.pack(0, team.timings.slowest) + packing.pack(self.own.join(step, probes, parts))
        self._count(bodies, told)
        return self._told(team.transport.tell(told))

    def _note(
        self, heads: Sequence[tuple[int, int, float, int]], bodies: Sequence[bytes], wall: float, *, timed: bool = True
    ) -> None:
        wire = [len(body) + 8 if rank != self.team.rank else 0 for rank, body in enumerate(bodies)]
        busy, forwards = [head[2] for head in heads], [head[3] for head in heads]
        self.team.timings.note(busy, forwards, wire, wall, timed=timed)

    def _measure(
        self, step: int, probes: Sequence[Move], mine: Sequence[int], anchored: bool
    ) -> tuple[list[Numbers], int, float]:
        """This rank's parts, the forward passes they took, and the seconds."""
        relative = self.team.mixed and (anchored or self.own.from_point) and not self.team.leads and bool(mine)
        places = [0, *mine] if relative else list(mine)
        began, parts = time.perf_counter(), list[Numbers]()
        with self.team.heartbeat.measuring():
            for part in self.own.measure(step, probes, places):
                parts.append(part)
                self.team.heartbeat.worked()
        busy = time.perf_counter() - began
        extra = self.own.from_point and bool(places) and places[0] != 0
        forwards = len(places) + extra
        if relative:
            levels, (point, *parts) = self.own.levels, parts
            for part in parts:
                part[levels] -= point[levels]
        return parts, forwards, busy

    def _joined(
        self,
        step: int,
        probes: Sequence[Move],
        dealt: Sequence[Sequence[int]],
        bodies: Sequence[bytes],
        own: Sequence[Numbers],
        anchored: bool,
        began: float,
    ) -> list[Losses]:
        """On the chief: the answers from the parts of all ranks."""
        team, levels = self.team, self.own.levels
        found: dict[int, Numbers] = {}
        finite: list[bool | None] = []
        heads = [_UP.unpack_from(body) for body in bodies]
        self._require_same(step, heads)
        relative = team.mixed and (anchored or self.own.from_point)
        for rank, (places, body) in enumerate(zip(dealt, bodies, strict=True)):
            parts = own if rank == team.rank else packing.unpack_numbers(body[_UP.size :])
            if relative and rank != team.rank:
                for part in parts:
                    part[levels] += own[0][levels]
            found |= dict(zip(places, parts, strict=True))
            finite.append(any(math.isfinite(part[levels][0]) for part in parts) if parts else None)
        team.timings.require_finite(finite, lambda rank: self._finite_here(step, probes, dealt[rank]))
        self._note(heads, bodies, time.perf_counter() - began)
        return self.own.join(step, probes, [found[place] for place in range(len(probes))])

    def _finite_here(self, step: int, probes: Sequence[Move], places: Sequence[int]) -> bool:
        """Whether this process has a finite loss at these probes: then the rank that had none is at fault."""
        parts = list(self.own.measure(step, probes, places))  # to the end, which puts the model back
        return any(math.isfinite(part[self.own.levels][0]) for part in parts)

    def _require_same(self, step: int, heads: Sequence[tuple[int, int, float, int]]) -> None:
        for rank, (at, checksum, *_) in enumerate(heads):
            if at != step:
                raise RunError(f"rank {rank} measured step {at} where the others measured step {step}")
            if checksum != heads[self.team.rank][1]:
                raise RunError(
                    f"rank {rank}: its replica differs from the others' after line {step - 1}, and agreed before it; "
                    "start the ranks again with --resume, which rebuilds every replica from the journal, and if the "
                    "same rank differs again, look for damaged memory or other versions of numpy on its machine"
                )

    def _count(self, bodies: Sequence[bytes], told: bytes) -> None:
        accounts, chief = self.team.timings.accounts, self.team.rank
        for rank, account in enumerate(accounts):
            if rank != chief:
                account.sent += len(told) + 8
                accounts[chief].sent += len(bodies[rank]) + len(told) + 16

    def _told(self, body: bytes) -> tuple[Losses, ...]:
        team = self.team
        length, slowest = _DOWN.unpack_from(body)
        if length:
            team.seconds = list(struct.unpack_from(f"<{team.size}d", body, _DOWN.size))
        team.heartbeat.slowest(slowest)
        return packing.unpack(body[_DOWN.size + length :])
