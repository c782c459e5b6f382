"""Tasks of prompts and what should follow: how their rows become batches, losses and scores.

The objective is the mean negative log-likelihood of the completions' tokens, over all tokens of a batch; the prompt
is read and not scored. A row may have several scored stretches: the assistant's turns of a conversation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from forq import losses
from forq.core import ConfigError, DataError
from forq.losses import Batch
from forq.tasks import Score, Split, Tokenizer
from forq.tasks._order import draw, rows_of
from forq.tasks._rewarded import Answer
from forq.tasks._tokens import bare, prefix


class Piece(NamedTuple):
    """Some text of a row, and whether the model is to learn to write it."""

    text: str
    scored: bool


class Row(NamedTuple):
    """A row in tokens; ``scored`` are places whose token is predicted. ``cut``: tokens dropped from the left."""

    tokens: tuple[int, ...]
    scored: tuple[int, ...]
    cut: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """A task of rows to complete; made by :func:`completion`.

    Attributes:
        dropped: rows by split whose completion alone was longer than a row may be.
    """

    name: str
    rows: Mapping[Split, tuple[Row, ...]]
    dropped: Mapping[Split, int]
    tokenizer: Tokenizer
    seed: int
    max_length: int
    batch_rows: int
    digest: str

    def describe(self) -> Mapping[str, Any]:
        every = self.rows.items()
        return {
            "task": self.name,
            "rows": {split: len(rows) for split, rows in every},
            "tokens": {split: sum(len(row.tokens) for row in rows) for split, rows in every},
            "scored": {split: sum(len(row.scored) for row in rows) for split, rows in every},
            "truncated": {split: sum(row.cut > 0 for row in rows) for split, rows in every},
            "dropped": dict(self.dropped),
            "max_length": self.max_length,
            "batch_rows": self.batch_rows,
            "digest": self.digest,
        }

    def batch(self, step: int) -> Batch:
        rows = self.rows["train"]
        picked = rows_of(step, rows=len(rows), batch_rows=self.batch_rows, seed=self.seed, digest=self.digest)
        return pack([rows[index] for index in picked])

    def batches(self, split: Split, limit: int | None = None) -> Iterator[Batch]:
        # Rows of like length stand together, so that little is padded.
        rows = sorted(self.rows[split][:limit], key=lambda row: len(row.tokens))
        for start in range(0, len(rows), self.batch_rows):
            yield pack(rows[start : start + self.batch_rows])

    def loss(self, model: nn.Module, batch: Batch) -> float:
        with torch.inference_mode():
            return float(self.loss_tensor(model, batch))

    def loss_tensor(self, model: nn.Module, batch: Batch) -> Tensor:
        return losses.mean_nll(model, batch)

    def evaluate(self, model: nn.Module, split: Split, limit: int | None = None) -> Score:
        total, tokens, rows = 0.0, 0, 0
        with torch.inference_mode():
            for batch in self.batches(split, limit):
                total += float(losses.token_nll(model, batch).double().sum())
                tokens += len(batch.target)
                rows += len(batch.input_ids)
        if rows == 0:
            raise ConfigError(f"limit must leave at least one row to evaluate, found {limit}")
        return Score(loss=total / tokens, rows=rows)

    def answers(self, model: nn.Module, batch: Batch) -> list[Answer]:
        """The likeliest continuation of every prompt, no longer than the longest right one and a token."""
        starts = [int(batch.column[batch.row == row][0]) + 1 for row in range(len(batch.input_ids))]
        prompts = [batch.input_ids[row, :start].tolist() for row, start in enumerate(starts)]
        written = greedy(model, prompts, max(batch.lengths) + 1, _end(self.tokenizer))
        found, place = [], 0
        for prompt, text, count in zip(prompts, written, batch.lengths, strict=True):
            right = batch.target[place : place + count].tolist()
            place += count
            said = [self.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in (prompt, text, right)]
            found.append(Answer(said[0], said[1], {"answer": said[2]}))
        return found

    def sample(self, model: nn.Module, n_tokens: int) -> str:
        """The first test prompt, and the likeliest continuation."""
        row = self.rows["test"][0]
        text = list(row.tokens[: row.scored[0]])
        with torch.inference_mode():
            (more,) = greedy(model, [text], min(n_tokens, self.max_length - len(text)), _end(self.tokenizer))
        return self.tokenizer.decode([*text, *more], skip_special_tokens=True)


def completion(
    name: str,
    pieces: Mapping[Split, Sequence[Sequence[Piece]]],
    tokenizer: Tokenizer,
    *,
    seed: int,
    max_length: int,
    batch_rows: int,
    end: bool = True,
) -> Completion:
    """Tokenise the rows of every split.

    Args:
        pieces: a row is a list of texts, one after the other.
        end: the last scored piece is followed by the tokenizer's end of text, if it has one, scored like it.

    Raises:
        ConfigError: a batch would be empty, or a row shorter than two tokens.
        DataError: a split is empty, or no completion of it fits into ``max_length``.
    """
    if batch_rows < 1 or max_length < 2:
        raise ConfigError(f"expected batch_rows ≥ 1 and max_length ≥ 2, found {batch_rows} and {max_length}")
    front, stop = prefix(tokenizer), _end(tokenizer) if end else None
    rows: dict[Split, tuple[Row, ...]] = {}
    dropped: dict[Split, int] = {}
    for split, texts in pieces.items():
        if not texts:
            raise DataError(f"{name}: {split} has no rows")
        found = [encode(row, tokenizer, front, stop, max_length) for row in texts]
        rows[split] = tuple(row for row in found if row is not None)
        dropped[split] = len(found) - len(rows[split])
        if not rows[split]:
            raise DataError(f"{name}: no completion of {split} fits into {max_length} tokens: raise task.max_length")
    settings = {"task": name, "law": 1, "max_length": max_length, "batch_rows": batch_rows, "end": end}
    digest = hashlib.sha256(json.dumps([settings, rows], sort_keys=True).encode()).hexdigest()
    return Completion(name, rows, dropped, tokenizer, seed, max_length, batch_rows, digest)


def encode(
    row: Sequence[Piece], tokenizer: Tokenizer, front: tuple[int, ...], stop: int | None, max_length: int
) -> Row | None:
    """Tokens of one row; one that is too long loses tokens on its left, but no scored one: None if it would."""
    tokens, said = list(front), ""
    scored: list[int] = []
    for piece in row:
        # Tokenised with all that came before: many tokenizers join or split differently at a seam.
        start, said = len(tokens), said + piece.text
        whole = [*front, *bare(tokenizer, said)]
        same = next((i for i, (a, b) in enumerate(zip(tokens, whole, strict=False)) if a != b), min(start, len(whole)))
        tokens = whole
        if piece.scored:
            scored += range(max(same, 1), len(tokens))
    if stop is not None and row and row[-1].scored:
        tokens.append(stop)
        scored.append(len(tokens) - 1)
    cut = max(0, len(tokens) - max_length)
    if not scored or scored[0] - 1 < cut:
        return None
    if cut and front:  # what the tokenizer puts in front stays in front
        kept = [*front, *tokens[cut + len(front) :]]
        if scored[0] - 1 < cut + len(front):
            return None
        return Row(tuple(kept), tuple(place - cut for place in scored), cut)
    return Row(tuple(tokens[cut:]), tuple(place - cut for place in scored), cut)


def greedy(model: nn.Module, prompts: Sequence[Sequence[int]], count: int, stop: int | None) -> list[list[int]]:
    """The likeliest tokens after each prompt, up to ``count`` or to ``stop``, which is left out.

    Rows are padded on the right and never see the padding, so a row's text does not depend on its neighbours; no
    cache is kept, which is right for every architecture and dear for long texts.
    """
    lm: Any = model
    rows, done = [list(prompt) for prompt in prompts], [False] * len(prompts)
    limit = getattr(lm.config, "max_position_embeddings", None)
    for _ in range(count):
        longest = max(map(len, rows))
        if all(done) or (limit is not None and longest > limit):
            break
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=lm.device)
        last = torch.tensor([len(row) - 1 for row in rows], device=lm.device)
        hidden = lm.base_model(input_ids=ids, use_cache=False).last_hidden_state
        best = lm.get_output_embeddings()(hidden[torch.arange(len(rows), device=lm.device), last]).argmax(dim=1)
        for row, token in enumerate(best.tolist()):
            if not done[row]:
                done[row] = token == stop
                if not done[row]:
                    rows[row].append(token)
    return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]


def pack(rows: Sequence[Row]) -> Batch:
    """Rows of one batch, padded on the right to the longest; the last token of a row predicts nothing."""
    width = max(len(row.tokens) - 1 for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row.tokens) - 1] = torch.tensor(row.tokens[:-1])
    places = [(index, place - 1, row.tokens[place]) for index, row in enumerate(rows) for place in row.scored]
    scored = torch.tensor(places)
    return Batch(ids, scored[:, 0], scored[:, 1], scored[:, 2], tuple(len(row.scored) for row in rows))


def splits(
    known: Mapping[Split, Sequence[Any]], *, seed: int, digest: str, limits: Mapping[Split, int | None]
) -> dict[Split, list[Any]]:
    """Rows by split; a split without a file of its own is drawn from the training rows, one in ten of them.

    Raises:
        ConfigError: a limit below 1.
        DataError: too few rows.
    """
    if any(limit is not None and limit < 1 for limit in limits.values()):
        raise ConfigError(f"splits need 1 row or more, found {dict(limits)}")
    train = known["train"]
    order = [train[place] for place in draw(len(train), len(train), seed=seed, digest=digest)]
    held: dict[Split, list[Any]] = {}
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


def _end(tokenizer: Tokenizer) -> int | None:
    found = getattr(tokenizer, "eos_token_id", None)
    return None if found is None else int(found)
