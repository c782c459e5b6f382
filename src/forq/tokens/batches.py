"""Batches of token rows with answers, and how a batch is split into forwards with little padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

_FORWARD = 128
"""Fixed cost of a forward, in token equivalents; a batch is split further only if more padding is saved."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of tokens, and the positions of the answer tokens that are scored.

    A row holds one prompt and ``options`` answers to it. Answers are numbered row by row
    (``row · options + option``), and their tokens are listed in that order.

    Attributes:
        input_ids: int64 [rows, length], padded on the right. The last token of an answer predicts nothing and
            is left out of the row unless its position is needed.
        row, column: int64 [answers]; the hidden state at [row, column] predicts the token ``target``.
        target: int64 [answers].
        lengths: number of tokens of each answer, [rows · options]; their sum is ``answers``.
        options: number of answers to each prompt.
        labels: int64 [rows], the correct option of each row; None if there is only one option.
        part: int64 [rows, length]: 0 in the prompt, k in the k-th option (from 1), −1 in the padding. None
            if no row holds several options, so that a causal mask is enough.
        most_tokens: largest number of tokens in a forward, padding included; None: no limit.
        facts: the fields of each row as a JSON object, for rewards and metrics; not used here.
        numbers: numbers of the rows in the batch of a step; None: 0, 1, 2, …
    """

    input_ids: Tensor
    row: Tensor
    column: Tensor
    target: Tensor
    lengths: tuple[int, ...]
    options: int = 1
    labels: Tensor | None = None
    part: Tensor | None = None
    most_tokens: int | None = None
    facts: tuple[str, ...] = ()
    numbers: tuple[int, ...] | None = None

    @property
    def numbered(self) -> tuple[int, ...]:
        """The number of each row in the batch of a step."""
        return self.numbers if self.numbers is not None else tuple(range(len(self.input_ids)))


def pieces(batch: Batch) -> list[list[int]]:
    """Row numbers of each forward; rows of similar length go together. See :func:`cut`."""
    if batch.part is None:
        # Tokens behind the last scored position are not needed.
        ends = torch.zeros(len(batch.input_ids), dtype=torch.int64)
        ends.scatter_reduce_(0, batch.row, batch.column + 1, "amax")
    else:
        ends = (batch.part >= 0).sum(dim=1)
    return cut(tuple(ends.tolist()), batch.most_tokens)


@lru_cache(maxsize=64)
def cut(lengths: tuple[int, ...], most: int | None = None) -> list[list[int]]:
    """Split rows into groups, one for each forward, so that the total cost is least.

    A forward costs the tokens of its rows, padded to the longest, and a fixed amount.

    Args:
        lengths: number of tokens of every row.
        most: largest number of tokens in a group, padding included. A longer row is a group by itself.

    Returns:
        Row numbers by group; a pure function of the arguments.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    tokens = np.array([lengths[row] for row in order])
    cost, start = np.zeros(len(order) + 1), np.zeros(len(order) + 1, np.int64)
    for end in range(1, len(order) + 1):
        first = np.arange(end)
        padded = (end - first) * tokens[:end]
        total = cost[:end] + padded + _FORWARD
        if most is not None:
            total[(padded > most) & (first < end - 1)] = np.inf
        start[end] = total.argmin()
        cost[end] = total[start[end]]
    groups, end = [], len(order)
    while end:
        groups.append(sorted(order[start[end] : end]))
        end = int(start[end])
    return groups[::-1]


def only(batch: Batch, rows: Sequence[int]) -> tuple[Batch, Tensor]:
    """Some rows of a batch without needless padding, and the indices of their answer tokens in the batch.

    Labels and facts are left out: they belong to the whole batch.

    Args:
        rows: in ascending order.
    """
    picked = torch.tensor(rows)
    renamed = torch.full((len(batch.input_ids),), -1)
    renamed[picked] = torch.arange(len(rows))
    places = (renamed[batch.row] >= 0).nonzero()[:, 0]
    part = None if batch.part is None else batch.part[picked]
    column = batch.column[places]
    width = int(column.max()) + 1 if part is None else int((part >= 0).sum(dim=1).max())
    k = len(batch.lengths) // len(batch.input_ids)
    selection = Batch(
        input_ids=batch.input_ids[picked, :width],
        row=renamed[batch.row[places]],
        column=column,
        target=batch.target[places],
        lengths=tuple(length for row in rows for length in batch.lengths[row * k : (row + 1) * k]),
        options=k,
        part=None if part is None else part[:, :width],
        numbers=tuple(batch.numbered[row] for row in rows),
    )
    return selection, places


def unpacked(batch: Batch) -> Batch:
    """The same answers with a row for each option. Works for every architecture, but costs ``options`` times more."""
    if batch.part is None:
        return batch
    columns = positions(batch.part)
    rows = []
    for answer in range(len(batch.lengths)):
        row, option = divmod(answer, batch.options)
        part = batch.part[row]
        rows.append(batch.input_ids[row][(part == 0) | (part == option + 1)])
    return Batch(
        input_ids=nn.utils.rnn.pad_sequence(rows, batch_first=True),
        row=torch.repeat_interleave(torch.tensor(batch.lengths)),
        column=columns[batch.row, batch.column],
        target=batch.target,
        lengths=batch.lengths,
        options=batch.options,
        labels=batch.labels,
        most_tokens=batch.most_tokens,
        numbers=tuple(number for number in batch.numbered for _ in range(batch.options)),
    )


def positions(part: Tensor) -> Tensor:
    """Position ids that restart after the prompt for each option: int64 [rows, length]."""
    place = torch.arange(part.shape[1], device=part.device).expand_as(part)
    prompt = (part == 0).sum(dim=1, keepdim=True)
    before = torch.stack([((part > 0) & (part < k)).sum(dim=1) for k in range(int(part.max()) + 1)], dim=1)
    shift = before.gather(1, part.clamp(min=0))
    return torch.where(part > 0, place - shift, torch.where(part == 0, place, prompt))
