"""Encode a row: its whole text at once, and the positions of the tokens that are scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from forq.errors import DataError
from forq.tasks import Tokenizer
from forq.tokens.text import bare, begins, opening


class Piece(NamedTuple):
    """A piece of a row's text, and whether the model learns to write it."""

    text: str
    scored: bool


class Asked(NamedTuple):
    """A row in text.

    Attributes:
        pieces: consecutive pieces of one text.
        facts: fields of the row, for rewards.
        where: file and line, for errors.
        rendered: a chat template wrote the text, so neither BOS nor an end is added to it.
    """

    pieces: Sequence[Piece]
    facts: Mapping[str, object] = MappingProxyType({})
    where: str = ""
    rendered: bool = False


class Edges(NamedTuple):
    """Token ids that begin and end texts.

    Attributes:
        front: ids the tokenizer puts in front of a text.
        bos: the id of BOS, which a truncated row keeps.
        end: the id appended to a completion; None: nothing is appended.
        ends: ids that end a text; a completion that ends with one gets no second.
    """

    front: tuple[int, ...]
    bos: int | None
    end: int | None
    ends: frozenset[int]


class Row(NamedTuple):
    """A row in tokens.

    Attributes:
        scored: positions of the tokens that are scored.
        cut: number of tokens removed from the left.
        facts: the row's fields, as a JSON object.
    """

    tokens: tuple[int, ...]
    scored: tuple[int, ...]
    cut: int = 0
    facts: str = "{}"


def encode(asked: Asked, tokenizer: Tokenizer, edges: Edges) -> Row:
    """Tokenise a row without a limit on its length.

    Raises:
        DataError: the text cannot be encoded (with the row's place).
    """
    try:
        tokens, scored = _encoded(asked, tokenizer, edges)
    except DataError as error:
        raise DataError(f"{asked.where}: {error}" if asked.where else str(error)) from error
    facts = json.dumps(dict(asked.facts), sort_keys=True, default=str)
    return Row(tuple(tokens), tuple(scored), facts=facts)


def fitted(row: Row, edges: Edges, max_length: int) -> Row | None:
    """The row in at most ``max_length`` tokens.

    A longer row loses tokens on its left. The result is None if it would lose a scored token, or if
    the row has none.
    """
    cut = max(0, len(row.tokens) - max_length)
    kept = opening(row.tokens, edges.front, edges.bos) if cut else 0
    # The token before the first scored one is needed to predict it.
    if not row.scored or row.scored[0] - 1 < cut + kept:
        return None
    tokens = (*row.tokens[:kept], *row.tokens[cut + kept :])
    return row._replace(tokens=tokens, scored=tuple(place - cut for place in row.scored), cut=cut)


def _encoded(asked: Asked, tokenizer: Tokenizer, edges: Edges) -> tuple[list[int], list[int]]:
    """Tokens of a row, and the positions of those that are scored.

    A token that straddles the edge of a scored piece is scored.
    """
    text = "".join(piece.text for piece in asked.pieces)
    tokens = bare(tokenizer, text)
    front = [] if asked.rendered or begins(tokens, edges.front) else list(edges.front)
    scored: list[int] = []
    at, ahead = 0, (0, 0)
    for piece in asked.pieces:
        begin, _ = ahead
        at += len(piece.text)
        ahead = (len(tokens), 0) if at == len(text) else _place(tokens, tokenizer, text[:at])
        if piece.scored:
            scored += range(len(front) + begin, len(front) + sum(ahead))
    tokens = front + tokens
    open_ended = not asked.rendered and bool(asked.pieces) and asked.pieces[-1].scored
    if open_ended and edges.end is not None and not _closed(text, tokens, tokenizer, edges.ends):
        tokens.append(edges.end)
        scored.append(len(tokens) - 1)
    # The first token of a row follows nothing, so it cannot be predicted.
    return tokens, sorted({place for place in scored if place > 0})


def _place(tokens: list[int], tokenizer: Tokenizer, before: str) -> tuple[int, int]:
    """How many of the tokens lie inside the prefix ``before`` of the text; and 1 if the next one straddles its end."""
    alone = bare(tokenizer, before)
    same = next((i for i, (a, b) in enumerate(zip(alone, tokens, strict=False)) if a != b), len(alone))
    same = min(same, len(tokens))
    return same, int(same < len(alone) and same < len(tokens))


def _closed(text: str, tokens: list[int], tokenizer: Tokenizer, ends: frozenset[int]) -> bool:
    """Whether a text ends with an end token; white space behind it does not count."""
    if tokens and tokens[-1] in ends:
        return True
    stripped = text.rstrip()
    return len(stripped) < len(text) and bool(ends.intersection(bare(tokenizer, stripped)[-1:]))
