"""How many tokens two texts keep that are too long together: the law of transformers' ``longest_first``."""

from __future__ import annotations


def kept(first: int, second: int, room: int, *, fast: bool = True) -> tuple[int, int]:
    """Number of tokens that each of two texts keeps: the longer one loses tokens until both are as long.

    Then both keep half. If the room is odd, the longer text keeps one more, of two as long the second. In a tokenizer
    written in Python it is always the first.

    Args:
        first, second: number of tokens of each text.
        room: most tokens of both, 2 or more.
        fast: the tokenizer is of the tokenizers library.

    Example:
        >>> kept(12, 3, 10), kept(12, 10, 17), kept(10, 12, 17), kept(10, 12, 17, fast=False)
        ((7, 3), (9, 8), (8, 9), (9, 8))
    """
    if first + second <= room:
        return first, second
    half = room // 2
    if min(first, second) <= half:
        return (room - second, second) if first > second else (first, room - first)
    ahead = first > second if fast else True
    return (room - half, half) if ahead else (half, room - half)


def kept_before(first: int, second: int, room: int) -> tuple[int, int]:
    """The same by law 1 of ``reading``: tokens go one by one from the longer text, of two as long from the first."""
    for _ in range(first + second - room):
        if first >= second:
            first -= 1
        else:
            second -= 1
    return first, second
