"""A row as the model sees it: runs of tokens, which of them are learned, and how each token is spelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from forq.tasks import Tokenizer
from forq.tokens.text import bare


class Segment(NamedTuple):
    """A run of tokens of a row.

    Attributes:
        tokens: ids, in the order of the model's input.
        learned: for every token, whether the loss is of how well it is predicted.
        role: what the run is to the task, as "the right option"; empty where a row is one run.
    """

    tokens: tuple[int, ...]
    learned: tuple[bool, ...]
    role: str = ""


def spellings(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """The text of every token as Python writes it, in quotes; of a token that is part of a character, its own name."""
    # Decoders drop a space in front of a text: every token is decoded behind another.
    anchor = bare(tokenizer, "a")[-1:]
    before = tokenizer.decode(anchor)
    names = getattr(tokenizer, "convert_ids_to_tokens", None)
    found = []
    for token in tokens:
        text = tokenizer.decode([*anchor, token])
        if text.startswith(before) and "\ufffd" not in text and len(text) > len(before):
            found.append(repr(text.removeprefix(before)))
        else:
            found.append(str(names([token])[0]) if names is not None else repr(text))
    return found
