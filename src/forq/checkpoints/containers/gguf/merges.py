"""The merges of a vocabulary, in order: from the file's list, or from the scores of its tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from forq.checkpoints.containers.gguf.spellings import NORMAL
from forq.checkpoints.containers.gguf.vocabulary import Vocabulary, entries
from forq.errors import FormatError

_KEY = "tokenizer.ggml.merges"
_LONGEST = 1 << 10


def by_table(path: Path, values: Mapping[str, object], vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The merges of ``tokenizer.ggml.merges``, each once.

    Raises:
        FormatError: there is no such list, or an entry is no pair of tokens whose concatenation is a token.
    """
    if _KEY not in values and vocabulary.pre != "kimi-k2":
        raise FormatError(f"{path}: {_KEY}: expected a list of pairs, found none; convert the file again")
    ids = vocabulary.ids
    merges: dict[tuple[str, str], None] = {}
    for place, text in enumerate(entries(path, values, "merges", str)):
        at = text.find(" ", 1)
        first, second = text[:at], text[at + 1 :]
        if at < 0 or first not in ids or second not in ids or first + second not in ids:
            raise FormatError(
                f"{path}: {_KEY}: expected two tokens that form a third, found {text!r:.80} at {place}; "
                "convert the file again"
            )
        merges[first, second] = None
    return list(merges)


def by_score(
    path: Path, values: Mapping[str, object], vocabulary: Vocabulary
) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """The merges that follow from the tokens' scores, and notes for the user.

    Two neighbours may merge if they form a token. The pair whose token has the best score comes first.

    Raises:
        FormatError: there are fewer scores than tokens, or a score is not finite.
    """
    ids = vocabulary.ids
    scores = entries(path, values, "scores", float, len(ids))
    if not all(map(math.isfinite, scores)):
        raise FormatError(f"{path}: tokenizer.ggml.scores: expected finite numbers; convert the file again")
    merges: list[tuple[float, int, str, str]] = []
    for text, token in ids.items():
        if len(text) > _LONGEST:
            continue
        for at in range(len(text) - 1, 0, -1):
            first, second = text[:at], text[at:]
            if first in ids and second in ids:
                merges.append((-scores[token], len(merges), first, second))
    merges.sort()
    # Runs of one character often share a score. They merge the same way from the left as in this order.
    mixed = [(score, first + second) for score, _, first, second in merges if len(set(first + second)) > 1]
    first_text = dict(reversed(mixed))
    tied = sum(first_text[score] != text for score, text in mixed)
    pairs = [(first, second) for _, _, first, second in merges]
    return pairs, tuple(_differences(vocabulary, tied))


def _differences(vocabulary: Vocabulary, tied: int) -> Iterator[str]:
    """Notes on cases in which llama.cpp may give other ids."""
    ids = vocabulary.ids
    if tied:
        yield f"pairs that merge into tokens of equal scores: {tied}; llama.cpp merges the leftmost first"
    if missing := sum(f"<0x{byte:02X}>" not in ids for byte in range(256)):
        yield f"bytes without a token: {missing}; their characters become unknown, llama.cpp fails"
    plain = (text for text, token in ids.items() if vocabulary.types[token] == NORMAL)
    if whole := sum(any(letter not in ids for letter in text) for text in plain):
        yield f"tokens with a character that has no token of its own: {whole}; llama.cpp finds them, forq does not"
