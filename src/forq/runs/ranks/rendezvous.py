"""Ranks of a launcher find each other: one gloo group, and a store that outlives a restart."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from forq.errors import RunError

WAIT = 600.0
"""Seconds a rank waits for the others to start."""

_POLL = 0.02


class Store(Protocol):
    """Keys and values that all ranks see; a store of torch.distributed."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """A group of processes.

    Attributes:
        store: keys and values that all ranks see; its keys are of this attempt alone.
        spare: the same store over another connection, for another thread.
    """

    rank: int
    size: int
    store: Store
    spare: Store


def meet(wait: float = WAIT) -> Rendezvous:
    """Join the ranks that the environment names, as torchrun and other launchers set it.

    Raises:
        RunError: the address cannot be used, or not all ranks arrive.
    """
    if dist.is_initialized():
        raise RunError("expected a process without torch.distributed, found it initialised; let forq begin it")
    with _explained():
        store, rank, size = next(iter(rendezvous("env://", timeout=timedelta(seconds=wait))))
        name = f"forq/{attempt(store, rank, size, time.monotonic() + wait)}"
        own, spare = PrefixStore(name, store), PrefixStore(name, store.clone())
        # The pulse says when a rank is silent; a chief that saves for an hour is not.
        dist.init_process_group("gloo", store=own, rank=rank, world_size=size, timeout=timedelta(days=7))
    return Rendezvous(rank, size, own, spare)


def part() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # torch.distributed's errors are RuntimeErrors
        words = str(error)
        if "EADDRINUSE" in words or "in use" in words.lower():
            raise RunError(
                f"the ranks' port is in use: expected a free MASTER_PORT, found another process on it ({words}); "
                "choose another port, or torchrun --standalone, which finds a free one"
            ) from error
        raise RunError(f"the ranks did not meet: {words}") from error


def attempt(store: Store, rank: int, size: int, until: float) -> str:
    """A name that all ranks of this attempt share, and no earlier attempt on the same store.

    Under torchrun the store outlives a restart, so that what it holds may be of ranks that are gone. Each rank posts a
    number of its own; rank 0 answers with a name and the numbers that it saw, until every rank has seen its own.
    """
    mine = secrets.token_hex(8)
    store.set(f"forq/here/{rank}", mine)
    return _host(store, mine, size, until) if rank == 0 else _guest(store, rank, mine, until)


def _host(store: Store, mine: str, size: int, until: float) -> str:
    others = [f"forq/here/{rank}" for rank in range(1, size)]
    seen: list[str] = []
    name = ""
    while True:
        for key in others:
            _wait(store, key, until)
        now = [mine, *(store.get(key).decode() for key in others)]
        if now != seen:
            seen, name = now, secrets.token_hex(4)
            store.set("forq/round", json.dumps([name, seen]))
        if all(store.check([f"forq/{name}/ready/{rank}"]) for rank in range(1, size)):
            store.set(f"forq/{name}/go", "1")
            return name
        _pause(until)


def _guest(store: Store, rank: int, mine: str, until: float) -> str:
    while True:
        if store.check(["forq/round"]):
            name, seen = json.loads(store.get("forq/round"))
            if rank < len(seen) and seen[rank] == mine:
                store.set(f"forq/{name}/ready/{rank}", "1")
                if store.check([f"forq/{name}/go"]):
                    return str(name)
        _pause(until)


def _wait(store: Store, key: str, until: float) -> None:
    while not store.check([key]):
        _pause(until)


def _pause(until: float) -> None:
    if time.monotonic() > until:
        raise RuntimeError("timed out: not every rank started; are all machines up, with the same number of ranks?")
    time.sleep(_POLL)
