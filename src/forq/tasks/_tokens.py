"""Text to token ids, with what the tokenizer adds kept apart from what the text says."""

from __future__ import annotations

from forq.tasks import Tokenizer


def bare(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of the text alone."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def prefix(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What the tokenizer itself puts in front of a text: BOS, or nothing."""
    return frame(tokenizer)[0]


def frame(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer itself puts in front of a text and behind it."""
    full, inner = list(tokenizer("a", verbose=False)["input_ids"]), bare(tokenizer, "a")
    start = next((i for i in range(len(full)) if full[i : i + len(inner)] == inner), 0)
    return tuple(full[:start]), tuple(full[start + len(inner) :])
