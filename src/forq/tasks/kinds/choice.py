"""Tasks that choose among words after a prompt: how their rows become batches, losses and scores.

The objective is the cross-entropy over the length-normalised log-likelihoods of the words (MeZO,
QZO). The prompt runs once for all words. A word of one token is read from the logits at the prompt's
last position. Longer words follow the prompt in the same row and do not see each other
(:class:`forq.tokens.batches.Batch`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from forq.errors import ConfigError
from forq.tasks import Tokenizer
from forq.tasks.kinds.prior import PRIOR_ROWS, prior_of
from forq.tasks.objectives import losses
from forq.tasks.objectives.rewarded import Answer
from forq.tasks.rows.classed import Classed
from forq.tasks.rows.segments import Segment
from forq.tokens.batches import Batch
from forq.tokens.text import bare, begins, opening, prefix

_AT_ONCE = 4
"""Rows of a forward pass that measures the prior: a step's memory is not known yet."""


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
class Choice(Classed[Row, Batch]):
    """A task whose rows are questions with options.

    Attributes:
        words: the options.
        prior: log-probabilities of the options that are taken out of every answer (:mod:`forq.tasks.kinds.prior`);
            None: nothing is taken out.
        empty: the empty prompt, if the prior is still to be measured; see :meth:`settled`.
    """

    read_apart: ClassVar[bool] = True

    words: tuple[str, ...]
    prior: tuple[float, ...] | None = None
    empty: Row | None = None

    @property
    def called(self) -> Sequence[str]:
        return self.words

    def length(self, row: Row) -> int:
        return row.length

    def reach(self, row: Row) -> int:
        # Options restart at the prompt's end. Where they do not fit behind one another, each gets a row of its own.
        return len(row.prompt) + max(len(option) for option in row.options) - 1

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

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        found = losses.log_likelihoods(model, batch)
        return found if self.prior is None else found - torch.tensor(self.prior, device=found.device)

    def settled(self, model: nn.Module) -> Choice:
        """The same task with the prior measured on a model; it itself if there is nothing to measure."""
        if self.empty is None:
            return self
        shown = [self._row_at(place) for place in range(PRIOR_ROWS)] if self.rows.get("train") else []
        packs = [shown[at : at + _AT_ONCE] for at in range(0, len(shown), _AT_ONCE)]
        with torch.inference_mode():
            empty, *found = (losses.log_likelihoods(model, self.pack(rows)) for rows in ([self.empty], *packs))
        answers, labels = torch.cat([empty[:0], *found]), torch.tensor([row.label for row in shown])
        known = prior_of(empty[0].cpu(), answers.cpu(), labels)
        # Four digits, so that the option of a resumed run says the number itself.
        return self.with_prior(tuple(round(value, 4) for value in known.tolist()))

    def with_prior(self, prior: tuple[float, ...]) -> Choice:
        """The same task with a prior that is known."""
        text = ",".join(f"{value:.4f}" for value in prior)
        digest = hashlib.sha256(f"{self.digest} prior {text}".encode()).hexdigest()
        return replace(self, prior=prior, empty=None, digest=digest, further={**self.further, "prior": text})

    def answers(self, model: nn.Module, batch: Batch) -> list[Answer]:
        likeliest = self.logits(model, batch).argmax(dim=1).tolist()
        assert batch.labels is not None
        answers = []
        for row, (best, right) in enumerate(zip(likeliest, batch.labels.tolist(), strict=True)):
            end = int(batch.column[batch.row == row][0]) + 1  # the prompt's last token predicts each option's first
            prompt = self.tokenizer.decode(batch.input_ids[row, :end].tolist(), skip_special_tokens=True)
            answers.append(Answer(prompt, self.words[best], {"answer": self.words[right], "label": right}))
        return answers


class Prompts:
    """Tokenises questions; a prompt that is too long loses its beginning.

    Args:
        words: the options, with the leading space that joins them to the prompt.
        keep: the end of the prompt, which truncation never removes.

    Raises:
        ConfigError: ``max_length`` does not hold ``keep`` and the words.
    """

    def __init__(self, tokenizer: Tokenizer, words: tuple[str, ...], keep: str, max_length: int) -> None:
        self.tokenizer, self.words, self.front, self.max_length = tokenizer, words, prefix(tokenizer), max_length
        least = len(self.front) + len(bare(tokenizer, keep)) + sum(len(bare(tokenizer, word)) for word in words)
        if max_length < least:
            raise ConfigError(f"max_length must be {least} or more for {keep!r} and {words}, found {max_length}")

    def row(self, question: Question) -> Row:
        """The tokens of a question."""
        return encode(question, self.words, self.tokenizer, self.front, self.max_length)


def encode(
    question: Question, words: tuple[str, ...], tokenizer: Tokenizer, front: tuple[int, ...], max_length: int
) -> Row:
    """Tokenise a question; a prompt that is too long loses tokens on its left.

    Each word is tokenised together with the prompt, because many tokenizers split text differently
    where the two meet. The row's prompt ends where the prompt alone ends, or earlier if the words'
    tokens begin to differ before that.

    Args:
        front: token ids that precede every prompt. A prompt that begins with them gets no second ones.
            They stay if the left is cut, and so does BOS where the tokenizer adds none.
        max_length: maximum number of tokens in the row.
    """
    alone = bare(tokenizer, question.prompt)
    full = [bare(tokenizer, question.prompt + word) for word in words]
    start = min(len(alone), _shared(full), min(map(len, full)) - 1)
    options = tuple(tuple(tokens[start:]) for tokens in full)
    own = opening(alone, front, getattr(tokenizer, "bos_token_id", None))
    head = (*(() if begins(alone, front) else front), *alone[:own])
    cut = max(0, len(head) + start - own + sum(len(option) - 1 for option in options) - max_length)
    return Row((*head, *full[0][own + cut : start]), options, question.label, cut)


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
