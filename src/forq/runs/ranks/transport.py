"""Bytes from every rank to the chief, and from the chief to every rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor


class Transport:
    """The group's connections.

    Args:
        lost: called with the error when a connection breaks; it raises the error that says why.

    Attributes:
        chief: rank that gathers and tells.
    """

    def __init__(self, rank: int, size: int, lost: Callable[[RuntimeError], NoReturn]) -> None:
        self.rank, self.size, self.chief = rank, size, 0
        self._lost = lost

    def gather(self, body: bytes) -> list[bytes]:
        """Every rank's message on the chief, in the order of ranks; an empty list on the others."""
        try:
            if self.rank == self.chief:
                return [body if rank == self.rank else self._receive(rank) for rank in range(self.size)]
            self._send(body)
        except RuntimeError as error:
            self._lost(error)
        return []

    def tell(self, body: bytes) -> bytes:
        """The chief's message on every rank; what others pass is not read."""
        try:
            length = torch.tensor([len(body)], dtype=torch.int64)
            dist.broadcast(length, self.chief)
            message = _tensor(body) if self.rank == self.chief else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(message, self.chief)
        except RuntimeError as error:
            self._lost(error)
        return body if self.rank == self.chief else message.numpy().tobytes()

    def _send(self, body: bytes) -> None:
        dist.send(torch.tensor([len(body)], dtype=torch.int64), self.chief)
        dist.send(_tensor(body), self.chief)

    def _receive(self, rank: int) -> bytes:
        length = torch.empty(1, dtype=torch.int64)
        dist.recv(length, rank)
        message = torch.empty(int(length), dtype=torch.uint8)
        dist.recv(message, rank)
        return message.numpy().tobytes()


def _tensor(body: bytes) -> Tensor:
    return torch.frombuffer(bytearray(body), dtype=torch.uint8) if body else torch.empty(0, dtype=torch.uint8)
