"""Tasks that choose among words after a prompt: how their rows become batches, losses and scores.

The objective is the cross-entropy over the length-normalised log-likelihoods of the words (MeZO, QZO). The
prompt runs once for all of them: a word of one token is read off the prompt's last position, longer ones
stand behind the prompt in the same row and do not see each other (:class:`forq.tokens.batches.Batch`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from forq.errors import ConfigError, DataError
from forq.tasks import Split, Tokenizer
from forq.tasks.objectives import losses
from forq.tasks.objectives.rewarded import Answer
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
        prompt: what the tokenizer puts in front of a text, and the prompt as far as all options share it.
        options: what follows, per option.
        cut: tokens dropped from the prompt's left.
    """

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    label: int
    cut: int = 0

    @property
    def length(self) -> int:
        """Tokens of the packed row; the last token of an option predicts nothing and is left out."""
        return len(self.prompt) + sum(len(option) - 1 for option in self.options)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Choice(Rows[Row, Batch]):
    """A task of questions; made by :func:`choice`."""

    words: tuple[str, ...]

    def details(self) -> Mapping[str, object]:
        return {
            "words": list(self.words),
            "labels": self._by_split(lambda rows: counts((row.label for row in rows), len(self.words))),
        }

    def length(self, row: Row) -> int:
        return row.length

    def lost(self, row: Row) -> int:
        return row.cut

    def segments(self, row: Row) -> list[Segment]:
        """The prompt, and every option; each stands behind the prompt and sees no other."""
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

    def answers(self, model: nn.Module, batch: Batch) -> list[Answer]:
        likeliest = losses.log_likelihoods(model, batch).argmax(dim=1).tolist()
        assert batch.labels is not None
        found = []
        for row, (best, right) in enumerate(zip(likeliest, batch.labels.tolist(), strict=True)):
            end = int(batch.column[batch.row == row][0]) + 1  # the options begin behind the prompt's last token
            prompt = self.tokenizer.decode(batch.input_ids[row, :end].tolist(), skip_special_tokens=True)
            found.append(Answer(prompt, self.words[best], {"answer": self.words[right], "label": right}))
        return found


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
    part: str,
    ignored: tuple[str, ...] = (),
) -> Choice:
    """Tokenise the questions of every split.

    Args:
        part: what a prompt loses that is too long, in words.
        words: the options, with the space in front that joins them to the prompt.
        keep: the end of the prompt that no truncation may touch.

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
        raise ConfigError(f"max_length must be {least + len(front)} or more for {keep!r} and {words}")
    rows: dict[Split, tuple[Row, ...]] = {
        split: tuple(encode(question, words, tokenizer, front, room) for question in asked)
        for split, asked in questions.items()
    }
    for split, found in rows.items():
        if not found:
            raise DataError(f"{name}: {split} has no rows")
    settings = {"task": name, "law": 1, "max_length": max_length, "batch_rows": batch_rows, "words": words}
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
        part=part,
        ignored=ignored,
    )


def encode(question: Question, words: tuple[str, ...], tokenizer: Tokenizer, front: tuple[int, ...], room: int) -> Row:
    """Tokens of one question; a prompt that is too long loses tokens on its left.

    Every word is tokenised together with the prompt, because many tokenizers join or split differently at the
    seam. The prompt ends where it ends by itself, or earlier where the words' tokens begin to differ.

    Args:
        front: what stands before every prompt.
        room: tokens for the prompt and the words.
    """
    alone = bare(tokenizer, question.prompt)
    full = [bare(tokenizer, question.prompt + word) for word in words]
    start = min(len(alone), _shared(full), min(map(len, full)) - 1)
    options = tuple(tuple(tokens[start:]) for tokens in full)
    cut = max(0, start + sum(len(option) - 1 for option in options) - room)
    return Row((*front, *full[0][cut:start]), options, question.label, cut)


def pack(rows: Sequence[Row], most_tokens: int | None = None) -> Batch:
    """Rows of one batch, padded on the right to the longest."""
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
