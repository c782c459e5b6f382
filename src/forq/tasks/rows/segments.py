"""A row as the model sees it: its tokens, which of them are learned, and the text of each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from forq.tasks import Tokenizer
from forq.tokens.text import bare


class Segment(NamedTuple):
    """A run of tokens of a row.

    Attributes:
        tokens: token ids, in the order of the model's input.
        learned: for each token, whether the loss scores its prediction.
        role: the role of the run in the task, for example "right option"; empty if the row has one run.
    """

    tokens: tuple[int, ...]
    learned: tuple[bool, ...]
    role: str = ""


def spellings(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """The text of each token as a quoted Python string; a token that is part of a character is named instead."""
    # Decoders drop a leading space, so each token is decoded after another token.
    anchor = bare(tokenizer, "a")[-1:]
    before = tokenizer.decode(anchor)
    names = getattr(tokenizer, "convert_ids_to_tokens", None)
    texts = []
    for token in tokens:
        text = tokenizer.decode([*anchor, token])
        if text.startswith(before) and "\ufffd" not in text and len(text) > len(before):
            texts.append(repr(text.removeprefix(before)))
        else:
            texts.append(str(names([token])[0]) if names is not None else repr(text))
    return texts
