"""Which ranks are alive, and why one ended.

Every rank has a thread that writes a word into the store, again and again. While the rank waits, loads or saves, the
word changes with time; while it measures, only with every forward pass that is done, so that a rank that hangs falls
silent too. A rank whose word stays the same for longer than the timeout ends the process of whoever watches it: nothing
else can, since the main thread waits in the group. That is safe, because a run may be killed at any moment.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from forq.runs.ranks.rendezvous import Rendezvous

log = logging.getLogger("forq")

FORWARDS = 10.0
"""Default timeout, in forward passes of the slowest rank, as long as the longest so far."""

SHORTEST = 10.0
"""Shortest default timeout, in seconds: a busy machine may well pause a process that long."""

UNKNOWN = 300.0
"""Timeout in seconds while no forward pass has been measured."""

LINGER = 1.0
"""Seconds that a rank leaves others to learn why it ends."""

_EVERY = 0.5
_GONE, _FAILED = "gone", "failed"


class Heartbeat:
    """This rank's pulse, and its watch over others.

    Args:
        timeout: seconds until a rank counts as silent; None: ten forward passes, and 10 s at least.
        ends: called with a sentence when a rank is silent; by default it is logged and the process ends.
    """

    def __init__(
        self,
        rendezvous: Rendezvous,
        timeout: float | None,
        ends: Callable[[str], None] | None = None,
    ) -> None:
        self._store, self._own = rendezvous.store, rendezvous.spare
        self.rank, self.size, self.chief = rendezvous.rank, rendezvous.size, 0
        self._timeout, self._ends = timeout, ends or _end
        self._slowest: float | None = None
        self._work, self._measuring, self._stopped = 0, False, threading.Event()
        self._seen: dict[int, tuple[str, float]] = {}
        self._thread = threading.Thread(target=self._run, name="forq heartbeat", daemon=True)
        self._thread.start()

    @property
    def timeout(self) -> float:
        """Seconds until a rank counts as silent."""
        if self._timeout is not None:
            return self._timeout
        return UNKNOWN if self._slowest is None else max(SHORTEST, FORWARDS * self._slowest)

    def slowest(self, seconds: float) -> None:
        """Learn how long a forward pass of the slowest rank took; the longest so far counts, since batches differ."""
        self._slowest = max(seconds, self._slowest or 0.0)

    def worked(self) -> None:
        """Note that a forward pass is done."""
        self._work += 1

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Inside the block only forward passes count as signs of life."""
        self._work += 1
        self._measuring = True
        try:
            yield
        finally:
            self._measuring = False

    def failed(self, why: str) -> None:
        """Leave a word for the other ranks on why this rank ends."""
        with suppress(RuntimeError):  # the store may be gone too
            self._store.set(f"{_FAILED}/{self.rank}", why)

    def why(self, patience: float = 3.0) -> str | None:
        """What ranks that ended have left, if any did and the store still stands."""
        with suppress(RuntimeError):  # the rendezvous host may be what is gone
            return self._left(time.monotonic() + patience)
        return None

    def _left(self, until: float) -> str | None:
        while True:
            for rank in range(self.size):
                if rank != self.rank and self._store.check([f"{_FAILED}/{rank}"]):
                    return f"rank {rank}: {self._store.get(f'{_FAILED}/{rank}').decode()}"
            if time.monotonic() > until:
                return None
            time.sleep(0.05)

    def stop(self) -> None:
        """Leave in good order: nobody waits for this rank any more."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        tick = 0
        try:
            while not self._stopped.wait(_EVERY):
                tick += 1
                word = f"work {self._work}" if self._measuring else f"tick {tick}"
                self._own.set(f"heartbeat/{self.rank}", word)
                self._watch(time.monotonic())
            self._own.set(f"heartbeat/{self.rank}", _GONE)
        except RuntimeError as error:
            time.sleep(2 * LINGER)  # the main thread may know more, and ends first
            if not self._stopped.is_set():
                self._ends(f"the rendezvous host is gone: {error}")

    def _watch(self, now: float) -> None:
        watched = range(self.size) if self.rank == self.chief else (self.chief,)
        for rank in watched:
            key = f"heartbeat/{rank}"
            if rank == self.rank or not self._own.check([key]):
                continue
            word = self._own.get(key).decode()
            before, since = self._seen.get(rank, ("", now))
            if word != before:
                self._seen[rank] = (word, now)
            elif word != _GONE and now - since > self.timeout:
                self._ends(f"rank {rank} gave no sign of life for {now - since:.0f} s")


def _end(why: str) -> None:
    log.error("forq: %s; this process ends. Nothing that was written is lost: --resume goes on", why)
    os._exit(1)
