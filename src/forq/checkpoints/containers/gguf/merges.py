"""The merges of a vocabulary, in order: from the file's list, or from the scores of its tokens."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
    firsts, seconds, wholes = array("i"), array("i"), array("i")  # ids: of Gemma 3, half a million pairs
    for text, token in ids.items():
        if len(text) > _LONGEST:
            continue
        for at in range(len(text) - 1, 0, -1):
            first, second = ids.get(text[:at]), ids.get(text[at:])
            if first is not None and second is not None:
                firsts.append(first)
                seconds.append(second)
                wholes.append(token)
    formed = np.array(wholes, np.int64)
    order = np.argsort(-np.array(scores)[formed], kind="stable")
    texts = list(ids)
    pairs = [(texts[firsts[place]], texts[seconds[place]]) for place in order.tolist()]
    return pairs, tuple(_differences(vocabulary, _tied(formed[order], scores, texts)))


def _tied(formed: NDArray[np.int64], scores: Sequence[float], texts: Sequence[str]) -> int:
    """How many pairs form another token than the first pair of the same score.

    Runs of one character are left out. They often share a score, and merge the same way from the left as in order.

    Args:
        formed: the token that each pair forms, in order of the scores.
    """
    mixed = np.array([token for token in formed.tolist() if len(set(texts[token])) > 1], np.int64)
    _, first, which = np.unique(np.array(scores)[mixed], return_index=True, return_inverse=True)
    return int((mixed != mixed[first][which]).sum())


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
