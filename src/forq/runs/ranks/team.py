"""The ranks of a run: who is chief, what each measures, and what it took them."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict
from types import TracebackType
from typing import Any, NoReturn, Self

from forq.coordinates.space import Space
from forq.errors import ForqError, RunError
from forq.models.loaded import LoadedModel
from forq.runs.divided import Divided
from forq.runs.oracles.ranks import Ranks
from forq.runs.ranks import schedule
from forq.runs.ranks.heartbeat import LINGER, Heartbeat
from forq.runs.ranks.rendezvous import Rendezvous, meet, part
from forq.runs.ranks.timings import Timings
from forq.runs.ranks.transport import Transport
from forq.scalars.protocols import Oracle
from forq.tasks import Score, Tallies, Tally, Task

_BYE = b"."


class Team:
    """The processes that tune one model together; this process is one of them.

    Use it as a context manager: an error inside is left to the other ranks as the reason why this one ended.

    Args:
        timeout: seconds until a silent rank ends the group; None: see :mod:`forq.runs.ranks.heartbeat`.

    Attributes:
        chief: the rank that writes the run's folder.
        facts: of each rank device, dtype, kernel, threads and host, once the session began.
        seconds: what a forward pass takes each rank; probes are dealt by it.
        timings: what the ranks did, kept by the chief.
        idle: number of ranks that had nothing to measure in the latest step.
    """

    def __init__(self, rendezvous: Rendezvous, timeout: float | None = None) -> None:
        self.rank, self.size, self.chief = rendezvous.rank, rendezvous.size, 0
        self.heartbeat = Heartbeat(rendezvous, timeout)
        self.transport = Transport(rendezvous.rank, rendezvous.size, self._lost)
        self.facts: list[dict[str, object]] = []
        self.seconds = [1.0] * rendezvous.size
        self.timings = Timings(rendezvous.size)
        self.idle = 0
        self._left = False

    @classmethod
    def join(cls, timeout: float | None = None) -> Self:
        """Join the ranks that torchrun (or another launcher's environment) names.

        Raises:
            RunError: they do not meet.
        """
        return cls(meet(), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.leave()
        else:
            stopped = isinstance(error, KeyboardInterrupt)
            self.heartbeat.failed(
                "it was stopped" if stopped else str(error) if isinstance(error, ForqError) else repr(error)
            )
            self._end()
            if self.rank == 0 and self.size > 1:  # it may host the store, where the others look for the reason now
                time.sleep(LINGER)

    @property
    def leads(self) -> bool:
        """Whether this rank is the chief."""
        return self.rank == self.chief

    @property
    def mixed(self) -> bool:
        """Whether ranks differ in what decides a loss's last bits: device, dtype, kernel or threads."""
        kinds = [{name: value for name, value in fact.items() if name != "host"} for fact in self.facts]
        return any(kind != kinds[0] for kind in kinds)

    def leave(self) -> None:
        """Leave in good order: together with all other ranks, since one of them may host the store."""
        if not self._left:
            self.transport.gather(_BYE)
            self.transport.tell(_BYE)
            self._end()

    def _end(self) -> None:
        self._left = True
        self.heartbeat.stop()
        part()

    def elect(self, lines: int | None) -> bool:
        """Choose the chief: the rank whose folder holds the longest journal, else rank 0.

        Args:
            lines: number of lines in the journal that this rank sees; None: it sees no run.

        Returns:
            Whether a run was found.
        """
        held = [json.loads(body) for body in self.transport.gather(json.dumps(-1 if lines is None else lines).encode())]
        best = max(range(len(held)), key=lambda rank: (held[rank], -rank)) if held else 0
        found = json.loads(self.transport.tell(json.dumps([best, bool(held) and held[best] >= 0]).encode()))
        self.chief = self.transport.chief = self.heartbeat.chief = int(found[0])
        return bool(found[1])

    def agree(self, refusal: str | None) -> None:
        """Go on only if no rank refuses.

        Raises:
            RunError: some do; each is named with its reason.
        """
        verdicts = [json.loads(body) for body in self.transport.gather(json.dumps(refusal).encode())]
        refused = [f"rank {rank}: {why}" for rank, why in enumerate(verdicts) if why is not None]
        told: list[str] = json.loads(self.transport.tell(json.dumps(refused).encode()))
        if told:
            raise RunError("; ".join(told))

    def introduce(self, facts: dict[str, object]) -> None:
        """Tell every rank what computes on this one."""
        own = {**facts, "host": socket.gethostname()}
        gathered = [json.loads(body) for body in self.transport.gather(json.dumps(own).encode())]
        self.facts = json.loads(self.transport.tell(json.dumps(gathered).encode()))

    def oracle(self, own: Divided, space: Space) -> Oracle:
        return Ranks(self, own, space)

    def shares(self, probes: int, *, from_point: bool, pairs: bool = False) -> list[list[int]]:
        """The places of a step's probes that each rank measures."""
        dealt = schedule.shares(probes, self.seconds, self.chief, from_point=from_point, pairs=pairs)
        self.idle = sum(not share for share in dealt)
        return dealt

    def evaluate(self, task: Task, model: LoadedModel) -> Score:
        if not isinstance(task, Tallies):  # its batches cannot be told apart: the chief scores alone
            score = task.evaluate(model, "validation") if self.leads else None
            return _score(self.transport.tell(b"" if score is None else json.dumps(asdict(score)).encode()), score)
        batches = task.batches("validation")
        own: dict[int, Tally] = {}
        owners = schedule.turns(self.seconds, [0] * self.size)  # batches grow longer, so they are dealt in turn
        for (place, batch), owner in zip(enumerate(batches), owners, strict=False):
            if owner == self.rank:
                own[place] = task.tally(model, batch)
        score = None
        gathered = self.transport.gather(json.dumps([[place, asdict(tally)] for place, tally in own.items()]).encode())
        if gathered:
            tallies = dict(own)
            for rank, body in enumerate(gathered):
                if rank != self.rank:
                    tallies |= {place: _tally(fields) for place, fields in json.loads(body)}
            score = task.total([tallies[place] for place in range(len(tallies))], "validation")
        return _score(self.transport.tell(b"" if score is None else json.dumps(asdict(score)).encode()), score)

    def _lost(self, error: RuntimeError) -> NoReturn:
        why = self.heartbeat.why()
        raise RunError(
            why
            or "the connection to another rank is lost, and it left no reason: it was killed, or its machine is "
            "gone; start the ranks again with --resume (torchrun --max-restarts does)"
        ) from error


def _tally(fields: dict[str, Any]) -> Tally:
    marks = fields["marks"]
    return Tally(**{**fields, "marks": None if marks is None else (tuple(marks[0]), tuple(marks[1]))})


def _score(told: bytes, own: Score | None) -> Score:
    return Score(**json.loads(told)) if own is None else own
