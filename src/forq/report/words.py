"""Numbers and nouns of sentences that people read."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count and its noun: ``1 step``, ``2,000 steps``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
