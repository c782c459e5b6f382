"""Losses and parts of them as bytes: float64, so that no bit is lost, and no text."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from forq.runs.divided import Numbers
from forq.scalars.losses import Confirmed, Losses, Own

_COUNTS = struct.Struct("<HIhhI")
"""Of each answer: forward passes, then the lengths of each, fisher, confirmed and own; −1 or 0 where there is none."""


def pack_numbers(arrays: Sequence[Numbers]) -> bytes:
    """Arrays, one behind the other, after the number of them and their lengths."""
    head = struct.pack(f"<I{len(arrays)}I", len(arrays), *map(len, arrays))
    return head + b"".join(np.ascontiguousarray(array, "<f8").tobytes() for array in arrays)


def unpack_numbers(body: bytes) -> list[Numbers]:
    """The inverse of :func:`pack_numbers`."""
    (count,) = struct.unpack_from("<I", body)
    lengths = struct.unpack_from(f"<{count}I", body, 4)
    numbers = np.frombuffer(body, "<f8", offset=4 * (1 + count)).astype(np.float64)
    return np.split(numbers, np.cumsum(lengths)[:-1]) if count else []


def pack(losses: Sequence[Losses]) -> bytes:
    """The answers to a step's probes."""
    heads, numbers = [], list[float]()
    for answer in losses:
        each = () if answer.each is None else answer.each
        own = () if answer.own is None else (answer.own.bend, *answer.own.rises)
        confirmed = None if answer.confirmed is None else [x for damping in answer.confirmed for x in damping]
        heads.append(
            _COUNTS.pack(
                answer.forwards,
                len(each),
                -1 if answer.fisher is None else len(answer.fisher),
                -1 if confirmed is None else len(confirmed),
                len(own),
            )
        )
        numbers += [answer.mean, *each, *(answer.fisher or ()), *(confirmed or ()), *own]
    return struct.pack("<I", len(losses)) + b"".join(heads) + np.array(numbers, "<f8").tobytes()


def unpack(body: bytes) -> tuple[Losses, ...]:
    """The inverse of :func:`pack`."""
    (count,) = struct.unpack_from("<I", body)
    heads = [_COUNTS.unpack_from(body, 4 + place * _COUNTS.size) for place in range(count)]
    numbers = np.frombuffer(body, "<f8", offset=4 + count * _COUNTS.size).tolist()
    losses, start = [], 0
    for forwards, *lengths in heads:
        parts = []
        for length in (1, *lengths):
            parts.append(tuple(numbers[start : start + max(length, 0)]))
            start += max(length, 0)
        (mean,), each, fisher, confirmed, own = parts
        losses.append(
            Losses(
                mean,
                each or None,
                forwards,
                None if lengths[1] < 0 else fisher,
                None if lengths[2] < 0 else tuple(map(Confirmed._make, zip(*[iter(confirmed)] * 3, strict=True))),
                Own(own[1:], own[0]) if own else None,
            )
        )
    return tuple(losses)
