"""Tasks of prompts and what should follow: how their rows become batches, losses and scores.

The objective is the mean negative log-likelihood of the completions' tokens, over all tokens of a batch; the prompt
is read and not scored. A row may have several scored stretches: the assistant's turns of a conversation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from forq.errors import ConfigError, DataError
from forq.tasks import Split, Tokenizer
from forq.tasks.chat.encoding import Asked, Edges, Row, encode, fitted
from forq.tasks.kinds.generate import ending, written
from forq.tasks.objectives import losses
from forq.tasks.objectives.rewarded import Answer
from forq.tasks.objectives.rewards import Reward
from forq.tasks.rows.order import draw
from forq.tasks.rows.rows import Rows
from forq.tasks.rows.segments import Segment
from forq.tokens.batches import Batch
from forq.tokens.ends import ends
from forq.tokens.template import ChatTemplate
from forq.tokens.text import end_of_text, prefix

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Completion(Rows[Row, Batch]):
    """A task of rows to complete; made by :func:`completion`.

    Attributes:
        new_tokens: tokens of an answer at most, where the model is asked for one.
        line: an answer ends with its line.
        ends: tokens that end an answer.
        further: more entries for the description; batches do not depend on them.
        rewards: what the likeliest answers of an evaluation are measured by; the first is the main number.
    """

    part: str = "the beginning of the prompt"
    new_tokens: int
    line: bool = False
    ends: frozenset[int] = frozenset()
    further: Mapping[str, object] = field(default_factory=dict)
    rewards: Mapping[str, Reward] = field(default_factory=dict)

    def details(self) -> Mapping[str, object]:
        return {
            "scored": self._by_split(lambda rows: sum(len(row.scored) for row in rows)),
            "new_tokens": self.new_tokens,
            **self.further,
        }

    def length(self, row: Row) -> int:
        return len(row.tokens)

    def lost(self, row: Row) -> int:
        return row.cut

    def segments(self, row: Row) -> tuple[Segment, ...]:
        learned = set(row.scored)
        return (Segment(row.tokens, tuple(place in learned for place in range(len(row.tokens)))),)

    def pack(self, rows: Sequence[Row], most_tokens: int | None = None) -> Batch:
        return pack(rows, most_tokens)

    def measured(self, model: nn.Module, batch: Batch) -> tuple[Tensor, None]:
        return losses.token_nll(model, batch), None

    def by_row(self, measured: Tensor, batch: Batch) -> Tensor:
        return losses.by_row(measured, batch)

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, float]:
        answers = self.answers(model, batch) if self.rewards else []
        return {name: sum(measure(*answer) for answer in answers) for name, measure in self.rewards.items()}

    def answers(self, model: nn.Module, batch: Batch) -> list[Answer]:
        """The likeliest continuation of every prompt; of a row with several stretches to learn, the last."""
        columns = [batch.column[batch.row == row].tolist() for row in range(len(batch.input_ids))]
        starts = [_last_stretch(places) for places in columns]
        prompts = [ids[: start + 1] for ids, start in zip(batch.input_ids.tolist(), starts, strict=True)]
        texts = written(model, prompts, self.new_tokens, ends=ending(self.tokenizer, self.ends, line=self.line))
        target = torch.split(batch.target, list(batch.lengths))
        found = []
        for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            right = target[row][columns[row].index(starts[row]) :].tolist()
            facts = {"answer": self._said(right), **json.loads(batch.facts[row])}
            found.append(Answer(self._said(prompt), self._said(text), facts))
        return found

    def sample(self, model: nn.Module, n_tokens: int) -> str:
        """The first test prompt, and the likeliest continuation."""
        row = self.rows["test"][0]
        prompt = list(row.tokens[: row.scored[0]])
        (more,) = written(model, [prompt], n_tokens, ends=ending(self.tokenizer, self.ends, line=self.line))
        return self._said([*prompt, *more])

    def _said(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


def completion(
    name: str,
    asked: Mapping[Split, Sequence[Asked]],
    tokenizer: Tokenizer,
    *,
    seed: int,
    max_length: int,
    batch_rows: int,
    end: bool = True,
    new_tokens: int | None = None,
    line: bool = False,
    metrics: Mapping[str, Reward] | None = None,
    template: ChatTemplate | None = None,
    further: Mapping[str, object] | None = None,
) -> Completion:
    """Tokenise the rows of every split.

    Args:
        end: append the tokenizer's EOS to the last scored piece and score it, unless the piece ends with an end token
            or a chat template rendered it.
        new_tokens: of an answer, at most; by default as many as the longest of the training rows has, and one.
        template: the chat template, if not the tokenizer's own; its end of turn also ends an answer.
        further: more entries for the task's description.

    Raises:
        ConfigError: a batch or an answer would be empty, or a row shorter than two tokens.
        DataError: a split is empty, or no completion of it fits into ``max_length``.
    """
    if batch_rows < 1 or max_length < 2 or (new_tokens is not None and new_tokens < 1):
        raise ConfigError(
            "expected batch_rows and new_tokens of 1 or more and max_length of 2 or more, found "
            f"{batch_rows}, {new_tokens} and {max_length}"
        )
    edges = Edges(
        prefix(tokenizer),
        bos=getattr(tokenizer, "bos_token_id", None),
        end=end_of_text(tokenizer) if end else None,
        ends=ends(tokenizer, template),
    )
    rows: dict[Split, tuple[Row, ...]] = {}
    dropped: dict[Split, tuple[int, ...]] = {}
    for split, every in asked.items():
        if not every:
            raise DataError(f"{name}: {split} has no rows")
        whole = [encode(row, tokenizer, edges) for row in every]
        found = [fitted(row, edges, max_length) for row in whole]
        rows[split] = tuple(row for row in found if row is not None)
        dropped[split] = tuple(len(row.tokens) for row, kept in zip(whole, found, strict=True) if kept is None)
    most = 1 + max((len(row.scored) for row in rows["train"]), default=0) if new_tokens is None else new_tokens
    settings = {"task": name, "law": 1, "max_length": max_length, "batch_rows": batch_rows, "end": end}
    settings |= {"new_tokens": most, "line": line}
    digest = hashlib.sha256(json.dumps([settings, rows], sort_keys=True).encode()).hexdigest()
    return Completion(
        name=name,
        rows=rows,
        dropped=dropped,
        tokenizer=tokenizer,
        seed=seed,
        max_length=max_length,
        batch_rows=batch_rows,
        digest=digest,
        new_tokens=most,
        line=line,
        ends=edges.ends,
        further=dict(further or {}),
        rewards=dict(metrics or {}),
    )


def pack(rows: Sequence[Row], most_tokens: int | None = None) -> Batch:
    """Rows of one batch, padded on the right to the longest; the last token of a row predicts nothing."""
    width = max(len(row.tokens) - 1 for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row.tokens) - 1] = torch.tensor(row.tokens[:-1])
    places = [(index, place - 1, row.tokens[place]) for index, row in enumerate(rows) for place in row.scored]
    scored = torch.tensor(places)
    return Batch(
        ids,
        scored[:, 0],
        scored[:, 1],
        scored[:, 2],
        tuple(len(row.scored) for row in rows),
        most_tokens=most_tokens,
        facts=tuple(row.facts for row in rows),
    )


def splits(
    known: Mapping[Split, Sequence[T]], *, seed: int, digest: str, limits: Mapping[Split, int | None]
) -> dict[Split, list[T]]:
    """Rows by split; a split without a file of its own is drawn from the training rows, one in ten of them.

    Raises:
        ConfigError: a limit below 1.
        DataError: too few rows.
    """
    if any(limit is not None and limit < 1 for limit in limits.values()):
        raise ConfigError(f"splits need 1 row or more, found {dict(limits)}")
    train = known["train"]
    order = [train[place] for place in draw(len(train), len(train), seed=seed, digest=digest)]
    held: dict[Split, list[T]] = {}
    for split in _HELD_OUT:
        if split in known:
            held[split] = list(known[split])
        else:
            count = min(limits[split] or len(train), max(1, len(train) // 10))
            held[split], order = order[:count], order[count:]
    if not order:
        raise DataError(f"{len(train)} rows are too few for training, validation and test: give three or more")
    return {split: rows[: limits[split]] for split, rows in {"train": order, **held}.items()}


_HELD_OUT: tuple[Split, ...] = ("validation", "test")


def _last_stretch(columns: Sequence[int]) -> int:
    """Where the last run of columns without a gap begins."""
    known = set(columns)
    return max(place for place in columns if place - 1 not in known)
