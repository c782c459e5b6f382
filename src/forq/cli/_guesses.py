"""What a model guesses of unseen index cards: in numbers that need no explanation, and letter by letter."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, cast

from forq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forq.models.loaded import LoadedModel
    from forq.tasks import Task
    from forq.tokens.batches import Batch

_CARD = re.compile(r"^name: .+\ntakes: .+\ndoes: .+$(?=\n\n)", re.MULTILINE)
_LABEL = re.compile(r"^(name|takes|does):", re.MULTILINE)
HIDDEN = "·"


@dataclass(frozen=True, slots=True)
class Piece:
    """A token of the true text, and whether it was the likeliest after the true text before it."""

    text: str
    right: bool
    start: int

    @property
    def shown(self) -> str:
        """The text; letters of a wrong guess are hidden."""
        return self.text if self.right else "".join(letter if letter.isspace() else HIDDEN for letter in self.text)


Row = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Guesses:
    """The guesses of a model on the test text.

    Attributes:
        rows: the rows of the test text.
        choices: the number of equally likely pieces that would leave the model as unsure (its perplexity).
    """

    rows: tuple[Row, ...]
    choices: float

    def right(self, counts: Callable[[bool], bool]) -> float:
        """The share of pieces that were guessed, of those that count.

        Args:
            counts: says whether a piece counts; its argument: the piece is in a label.
        """
        some = [piece.right for row in self.rows for piece, label in _labelled(row) if counts(label)]
        return sum(some) / len(some)


def guesses(model: LoadedModel, task: Task) -> Guesses:
    """Guess every scored piece of a text task's test rows."""
    import torch

    hits: list[bool] = []
    tokens: list[list[int]] = []
    nll = 0.0
    for batch in cast("Iterator[Batch]", task.batches("test")):
        ids = iter(batch.target.tolist())
        tokens += [list(islice(ids, length)) for length in batch.lengths]
        at = 0
        with torch.inference_mode():
            for logits in model.scored_logits(batch):
                wanted = batch.target[at : at + len(logits)].to(logits.device)
                hits += (logits.argmax(dim=1) == wanted).tolist()
                nll += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))
                at += len(logits)
    found = iter(hits)
    rows = tuple(_row([(model.tokenizer.decode([token]), next(found)) for token in row]) for row in tokens)
    return Guesses(rows, math.exp(nll / len(hits)))


def _row(pieces: Sequence[tuple[str, bool]]) -> Row:
    made, start = [], 0
    for text, right in pieces:
        made.append(Piece(text, right, start))
        start += len(text)
    return tuple(made)


def _labelled(row: Row) -> Iterator[tuple[Piece, bool]]:
    """Every piece, and whether it is in one of a card's labels."""
    labels = [match.span() for match in _LABEL.finditer(_text(row))]
    for piece in row:
        middle = piece.start + (len(piece.text) - 1) / 2
        yield piece, any(start <= middle < end for start, end in labels)


def _text(row: Row) -> str:
    return "".join(piece.text for piece in row)


def typical(before: Guesses, after: Guesses) -> list[tuple[str, str, str]]:
    """Lines of one card: its text, and what both models guess of it.

    Of all whole cards of the test text it is the one whose gain, in letters, is nearest to the mean gain of them.
    """
    cards = []
    for one, other in zip(before.rows, after.rows, strict=True):
        text, shown = _text(one), ["".join(piece.shown for piece in row) for row in (one, other)]
        for match in _CARD.finditer(text):
            sides = [match.group(), *(side[match.start() : match.end()] for side in shown)]
            cards.append((_seen(sides[2]) - _seen(sides[1]), sides))
    if not cards:
        raise DataError("the test text has no whole card: expected lines name, takes and does, and an empty one")
    mean = sum(gain for gain, _ in cards) / len(cards)
    _, sides = min(cards, key=lambda card: abs(card[0] - mean))
    return list(zip(*(side.splitlines() for side in sides), strict=True))


def _seen(shown: str) -> float:
    """The share of letters that were guessed."""
    letters = [letter for letter in shown if not letter.isspace()]
    return 1 - letters.count(HIDDEN) / len(letters)
