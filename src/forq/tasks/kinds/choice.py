"""Tasks that choose among words after a prompt: how their rows become batches, losses and scores.

The objective is the cross-entropy over the length-normalised log-likelihoods of the words (MeZO,
QZO). The prompt runs once for all words. A word of one token is read from the logits at the prompt's
last position. Longer words follow the prompt in the same row and do not see each other
(:class:`forq.tokens.batches.Batch`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from forq.errors import ConfigError, DataError
from forq.tasks import Split, Tokenizer
from forq.tasks.objectives import losses
from forq.tasks.objectives.predictions import Predictions, Uniform
from forq.tasks.objectives.rewarded import Answer
from forq.tasks.rows.order import of_each_class
from forq.tasks.rows.rows import Rows, counts
from forq.tasks.rows.segments import Segment
from forq.tokens.batches import Batch
from forq.tokens.text import bare, prefix


class Question(NamedTuple):
    """A prompt as text, and the index of the right option."""

    prompt: str
    label: int


class Row(NamedTuple):
    """A question in tokens.

    Attributes:
        prompt: the tokenizer's prefix, and the part of the prompt that all options share.
        options: the tokens that follow, for each option.
        label: the index of the right option.
        cut: number of tokens removed from the prompt's left.
    """

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    label: int
    cut: int = 0

    @property
    def length(self) -> int:
        """Number of tokens in the packed row; an option's last token predicts nothing and is left out."""
        return len(self.prompt) + sum(len(option) - 1 for option in self.options)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Choice(Rows[Row, Batch]):
    """A task whose rows are questions with options; made by :func:`choice`."""

    read_apart: ClassVar[bool] = True

    words: tuple[str, ...]

    def details(self) -> Mapping[str, object]:
        return {
            "words": list(self.words),
            "labels": self._by_split(lambda rows: counts((row.label for row in rows), len(self.words))),
            "balanced": self.by_class is not None,
        }

    def length(self, row: Row) -> int:
        return row.length

    def lost(self, row: Row) -> int:
        return row.cut

    def segments(self, row: Row) -> list[Segment]:
        """The prompt, then each option. An option follows the prompt and does not see the others."""
        prompt = Segment(row.prompt, (False,) * len(row.prompt), "prompt")
        options = [
            Segment(option, (True,) * len(option), "right option" if place == row.label else "wrong option")
            for place, option in enumerate(row.options)
        ]
        return [prompt, *options]

    def pack(self, rows: Sequence[Row], most_tokens: int | None = None) -> Batch:
        return pack(rows, most_tokens)

    def measured(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return losses.choice_nll(model, batch)

    def predictions(self, model: nn.Module, batch: Batch, at: Predictions | None, uniform: Uniform) -> Predictions:
        with torch.inference_mode():
            return losses.choice_predictions(model, batch)

    def answers(self, model: nn.Module, batch: Batch) -> list[Answer]:
        likeliest = losses.log_likelihoods(model, batch).argmax(dim=1).tolist()
        assert batch.labels is not None
        answers = []
        for row, (best, right) in enumerate(zip(likeliest, batch.labels.tolist(), strict=True)):
            end = int(batch.column[batch.row == row][0]) + 1  # the prompt's last token predicts each option's first
            prompt = self.tokenizer.decode(batch.input_ids[row, :end].tolist(), skip_special_tokens=True)
            answers.append(Answer(prompt, self.words[best], {"answer": self.words[right], "label": right}))
        return answers


def choice(
    name: str,
    questions: Mapping[Split, Iterable[Question]],
    tokenizer: Tokenizer,
    *,
    words: tuple[str, ...],
    keep: str,
    seed: int,
    max_length: int,
    batch_rows: int,
    balanced: bool,
    part: str,
    ignored: tuple[str, ...] = (),
) -> Choice:
    """Tokenise the questions of every split.

    Args:
        words: the options, with the leading space that joins them to the prompt.
        keep: the end of the prompt, which truncation never removes.
        balanced: every batch has as many rows of each right option.
        part: the part a prompt loses if it is too long, in words.

    Raises:
        ConfigError: a batch would be empty, or ``max_length`` does not hold ``keep`` and the words.
        DataError: a split is empty.
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows must be 1 or more, found {batch_rows}")
    front = prefix(tokenizer)
    room = max_length - len(front)
    least = len(bare(tokenizer, keep)) + sum(len(bare(tokenizer, word)) for word in words)
    if room < least:
        raise ConfigError(
            f"max_length must be {least + len(front)} or more for {keep!r} and {words}, found {max_length}"
        )
    rows: dict[Split, tuple[Row, ...]] = {
        split: tuple(encode(question, words, tokenizer, front, room) for question in asked)
        for split, asked in questions.items()
    }
    for split, encoded in rows.items():
        if not encoded:
            raise DataError(f"{name}: {split} has no rows")
    settings = {"task": name, "law": 1, "max_length": max_length, "batch_rows": batch_rows, "words": words}
    settings |= {"balanced": True} if balanced else {}  # off: the digest from before the option
    digest = hashlib.sha256(json.dumps([settings, rows], sort_keys=True).encode()).hexdigest()
    return Choice(
        name=name,
        words=words,
        rows=rows,
        tokenizer=tokenizer,
        seed=seed,
        max_length=max_length,
        batch_rows=batch_rows,
        digest=digest,
        by_class=of_each_class(row.label for row in rows["train"]) if balanced else None,
        part=part,
        ignored=ignored,
    )


def encode(question: Question, words: tuple[str, ...], tokenizer: Tokenizer, front: tuple[int, ...], room: int) -> Row:
    """Tokenise a question; a prompt that is too long loses tokens on its left.

    Each word is tokenised together with the prompt, because many tokenizers split text differently
    where the two meet. The row's prompt ends where the prompt alone ends, or earlier if the words'
    tokens begin to differ before that.

    Args:
        front: token ids that precede every prompt.
        room: maximum number of tokens for the prompt and the words.
    """
    alone = bare(tokenizer, question.prompt)
    full = [bare(tokenizer, question.prompt + word) for word in words]
    start = min(len(alone), _shared(full), min(map(len, full)) - 1)
    options = tuple(tuple(tokens[start:]) for tokens in full)
    cut = max(0, start + sum(len(option) - 1 for option in options) - room)
    return Row((*front, *full[0][cut:start]), options, question.label, cut)


def pack(rows: Sequence[Row], most_tokens: int | None = None) -> Batch:
    """Pack rows into a batch, padded on the right to the longest row."""
    width = max(row.length for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    part = torch.full((len(rows), width), -1)
    places: list[tuple[int, int, int]] = []
    for index, row in enumerate(rows):
        end = len(row.prompt)
        ids[index, :end], part[index, :end] = torch.tensor(row.prompt), 0
        for number, option in enumerate(row.options, start=1):
            body = len(option) - 1
            ids[index, end : end + body], part[index, end : end + body] = torch.tensor(option[:-1]), number
            columns = (len(row.prompt) - 1, *range(end, end + body))
            places += [(index, column, token) for column, token in zip(columns, option, strict=True)]
            end += body
    scored = torch.tensor(places)
    return Batch(
        input_ids=ids,
        row=scored[:, 0],
        column=scored[:, 1],
        target=scored[:, 2],
        lengths=tuple(len(option) for row in rows for option in row.options),
        options=len(rows[0].options),
        labels=torch.tensor([row.label for row in rows]),
        part=part if bool((part > 0).any()) else None,
        most_tokens=most_tokens,
    )


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest common prefix."""
    same = 0
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        same += 1
    return same
