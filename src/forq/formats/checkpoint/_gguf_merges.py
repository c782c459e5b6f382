"""Which pairs of tokens merge, and in what order: from a file's list, or from the scores of its tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forq.core import FormatError
from forq.formats.checkpoint._gguf_vocabulary import Vocabulary, entries

_KEY = "tokenizer.ggml.merges"
_LONGEST = 1 << 10


def by_table(path: Path, values: Mapping[str, Any], vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The merges of ``tokenizer.ggml.merges``, each once.

    Raises:
        FormatError: there is no such list, or an entry is no pair of tokens that make a third.
    """
    if _KEY not in values and vocabulary.pre != "kimi-k2":
        raise FormatError(f"{path}: {_KEY}: expected a list of pairs, found none; convert the file anew")
    ids = vocabulary.ids
    merges: dict[tuple[str, str], None] = {}
    for place, text in enumerate(entries(path, values, "merges", str)):
        at = text.find(" ", 1)
        first, second = text[:at], text[at + 1 :]
        if at < 0 or first not in ids or second not in ids or first + second not in ids:
            raise FormatError(
                f"{path}: {_KEY}: expected two tokens that make a third, found {text!r:.80} at {place}; "
                "convert the file anew"
            )
        merges[first, second] = None
    return list(merges)


def by_score(path: Path, values: Mapping[str, Any], vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The merges that scores mean: of all pairs of neighbours that make a token, the best token's merges first.

    Raises:
        FormatError: there are fewer scores than tokens, or one is not finite.
    """
    ids = vocabulary.ids
    scores = entries(path, values, "scores", float, len(ids))
    if not all(map(math.isfinite, scores)):
        raise FormatError(f"{path}: tokenizer.ggml.scores: expected finite numbers; convert the file anew")
    merges: list[tuple[float, int, str, str]] = []
    for text, token in ids.items():
        if len(text) > _LONGEST:
            continue
        for at in range(len(text) - 1, 0, -1):
            first, second = text[:at], text[at:]
            if first in ids and second in ids:
                merges.append((-scores[token], len(merges), first, second))
    return [(first, second) for _, _, first, second in sorted(merges)]
