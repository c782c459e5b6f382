"""Tasks of prompts and completions: how their rows become batches, losses and scores.

The objective is the mean negative log-likelihood over all completion tokens of a batch. The model
reads the prompt, but the prompt is not scored. A row may have several scored stretches: the
assistant's turns of a conversation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import nn

from forq.errors import ConfigError, DataError
from forq.tasks import Split, Tokenizer
from forq.tasks.chat.encoding import Asked, Edges, Row, encode, fitted
from forq.tasks.kinds.generate import ending, written
from forq.tasks.kinds.token_rows import TokenRows
from forq.tasks.objectives.rewarded import Answer
from forq.tasks.objectives.rewards import Reward
from forq.tasks.objectives.right_answers import listed
from forq.tasks.rows.order import draw
from forq.tasks.rows.segments import Segment
from forq.tokens.batches import Batch
from forq.tokens.ends import ends
from forq.tokens.template import ChatTemplate
from forq.tokens.text import end_of_text, prefix

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Completion(TokenRows[Row]):
    """A task of rows to complete; made by :func:`completion`.

    Attributes:
        new_tokens: maximum number of tokens in a generated answer.
        line: whether an answer ends at the end of its line.
        ends: tokens that end an answer.
        further: more entries for the description; batches do not depend on them.
        rewards: metrics for the greedy answers of an evaluation; the first is the main number.
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

    def reach(self, row: Row) -> int:
        return len(row.tokens) - 1  # the last token predicts nothing

    def lost(self, row: Row) -> int:
        return row.cut

    def segments(self, row: Row) -> tuple[Segment, ...]:
        learned = set(row.scored)
        return (Segment(row.tokens, tuple(place in learned for place in range(len(row.tokens)))),)

    def pack(self, rows: Sequence[Row], most_tokens: int | None = None) -> Batch:
        return pack(rows, most_tokens)

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, float]:
        answers = self.answers(model, batch) if self.rewards else []
        return {name: sum(measure(*answer) for answer in answers) for name, measure in self.rewards.items()}

    def answers(self, model: nn.Module, batch: Batch) -> list[Answer]:
        """The greedy continuation of each prompt. If a row has several scored stretches, the last one is generated."""
        columns = [batch.column[batch.row == row].tolist() for row in range(len(batch.input_ids))]
        starts = [_last_stretch(places) for places in columns]
        prompts = [ids[: start + 1] for ids, start in zip(batch.input_ids.tolist(), starts, strict=True)]
        texts = written(model, prompts, self.new_tokens, ends=ending(self.tokenizer, self.ends, line=self.line))
        target = torch.split(batch.target, list(batch.lengths))
        answers = []
        for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            right = target[row][columns[row].index(starts[row]) :].tolist()
            facts = {"answer": self._decoded(right), **json.loads(batch.facts[row])}
            answers.append(Answer(self._decoded(prompt), self._decoded(text), facts))
        return answers

    def with_listed_answers(self) -> Completion:
        """The same task with the ``answers`` of every row as a list, and another digest if that changes a row."""
        rows = {
            split: tuple(row._replace(facts=listed(row.facts)) for row in known) for split, known in self.rows.items()
        }
        if all(rows[split] == tuple(known) for split, known in self.rows.items()):
            return self
        return replace(self, rows=rows, digest=hashlib.sha256(f"{self.digest} answers listed".encode()).hexdigest())

    def sample(self, model: nn.Module, n_tokens: int) -> str:
        """The first test prompt and its greedy continuation."""
        row = self.rows["test"][0]
        prompt = list(row.tokens[: row.scored[0]])
        (continuation,) = written(model, [prompt], n_tokens, ends=ending(self.tokenizer, self.ends, line=self.line))
        return self._decoded([*prompt, *continuation])

    def _decoded(self, tokens: list[int]) -> str:
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
        end: append the tokenizer's EOS to the last scored piece and score it, unless the piece already
            ends with an end token or a chat template rendered it.
        new_tokens: maximum number of tokens in an answer. The default is one more than the longest
            row scores, of the training rows if there are any.
        line: whether an answer ends at the end of its line.
        metrics: metrics for greedy answers; the first is the main number.
        template: the chat template, if it is not the tokenizer's own. Its end-of-turn token also ends
            an answer.
        further: more entries for the task's description.

    Raises:
        ConfigError: a batch or an answer would be empty, or rows would be shorter than two tokens.
        DataError: a split is empty, or too many completions do not fit into ``max_length``.
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
    for split, texts in asked.items():
        if not texts:
            raise DataError(f"{name}: {split} has no rows")
        whole = [encode(text, tokenizer, edges) for text in texts]
        shortened = [fitted(row, edges, max_length) for row in whole]
        rows[split] = tuple(row for row in shortened if row is not None)
        dropped[split] = tuple(len(row.tokens) for row, short in zip(whole, shortened, strict=True) if short is None)
    seen = rows["train"] if "train" in rows else rows["test"]
    most = 1 + max((len(row.scored) for row in seen), default=0) if new_tokens is None else new_tokens
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
    """Pack rows into a batch, padded on the right to the longest row. A row's last token predicts nothing."""
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
    """Rows by split. A split without a file of its own is drawn from the training rows, one in ten.

    Raises:
        ConfigError: a limit is below 1.
        DataError: there are too few rows.
    """
    if any(limit is not None and limit < 1 for limit in limits.values()):
        raise ConfigError(f"splits need 1 row or more, found {dict(limits)}")
    train = known["train"]
    order = [train[place] for place in draw(len(train), len(train), seed=seed, digest=digest)]
    held_out: dict[Split, list[T]] = {}
    for split in _HELD_OUT:
        if split in known:
            held_out[split] = list(known[split])
        else:
            count = min(limits[split] or len(train), max(1, len(train) // 10))
            held_out[split], order = order[:count], order[count:]
    if not order:
        raise DataError(f"expected three rows or more for training, validation and test, found {len(train)}; add rows")
    return {split: rows[: limits[split]] for split, rows in {"train": order, **held_out}.items()}


_HELD_OUT: tuple[Split, ...] = ("validation", "test")


def _last_stretch(columns: Sequence[int]) -> int:
    """The first column of the last run of consecutive columns."""
    known = set(columns)
    return max(place for place in columns if place - 1 not in known)
