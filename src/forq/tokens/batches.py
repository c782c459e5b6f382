"""Batches of token rows with answers in them, and how a batch is cut into forwards that pad little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

_FORWARD = 128
"""What a forward costs beside its tokens, in tokens: a piece more must save at least as many of padding."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of tokens, and the answer tokens among them that are scored.

    A row holds one prompt and ``options`` answers to it. Answers are numbered row by row
    (``row · options + option``), their tokens listed in that order.

    Attributes:
        input_ids: int64 [rows, length], padded on the right. The last token of an answer predicts nothing and
            is not part of the row unless its place is needed.
        row, column: int64 [answers]; the hidden state at [row, column] predicts the token ``target``.
        target: int64 [answers].
        lengths: tokens of each answer, [rows · options]; their sum is ``answers``.
        options: answers to each prompt.
        labels: int64 [rows], the right option of each row; None where there is but one.
        part: int64 [rows, length]: 0 in the prompt, k in the k-th option (from 1), −1 in the padding. None
            where no answer is packed beside another, and a causal mask says all.
        most_tokens: of one forward, padding included; None: no bound.
        facts: per row, the fields it was read from as a JSON object, for rewards and metrics; not used here.
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


def pieces(batch: Batch) -> list[list[int]]:
    """Rows of a batch by forward: those of like length together; see :func:`cut`."""
    if batch.part is None:
        # Nobody looks behind the last place that predicts.
        ends = torch.zeros(len(batch.input_ids), dtype=torch.int64)
        ends.scatter_reduce_(0, batch.row, batch.column + 1, "amax")
    else:
        ends = (batch.part >= 0).sum(dim=1)
    return cut(tuple(ends.tolist()), batch.most_tokens)


@lru_cache(maxsize=64)
def cut(lengths: tuple[int, ...], most: int | None = None) -> list[list[int]]:
    """Groups of rows whose forwards, each padded to its longest row, cost least together.

    Args:
        lengths: tokens of every row.
        most: tokens of a group with its padding; a row longer than that is alone.

    Returns:
        Row numbers by group; a pure function of the arguments.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    tokens = np.array([lengths[row] for row in order])
    cost, start = np.zeros(len(order) + 1), np.zeros(len(order) + 1, np.int64)
    for end in range(1, len(order) + 1):
        first = np.arange(end)
        padded = (end - first) * tokens[:end]
        whole = cost[:end] + padded + _FORWARD
        if most is not None:
            whole[(padded > most) & (first < end - 1)] = np.inf
        start[end] = whole.argmin()
        cost[end] = whole[start[end]]
    groups, end = [], len(order)
    while end:
        groups.append(sorted(order[start[end] : end]))
        end = int(start[end])
    return groups[::-1]


def only(batch: Batch, rows: Sequence[int]) -> tuple[Batch, Tensor]:
    """Some rows of a batch, no wider than they need, and the places their answer tokens have in the whole.

    Labels and facts are left out: they belong to the whole.

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
    found = Batch(
        input_ids=batch.input_ids[picked, :width],
        row=renamed[batch.row[places]],
        column=column,
        target=batch.target[places],
        lengths=tuple(length for row in rows for length in batch.lengths[row * k : (row + 1) * k]),
        options=k,
        part=None if part is None else part[:, :width],
    )
    return found, places


def unpacked(batch: Batch) -> Batch:
    """The same answers with one row per option: right for every architecture, ``options`` times the work."""
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
    )


def positions(part: Tensor) -> Tensor:
    """Position ids that start anew after the prompt for each option: int64 [rows, length]."""
    place = torch.arange(part.shape[1], device=part.device).expand_as(part)
    prompt = (part == 0).sum(dim=1, keepdim=True)
    before = torch.stack([((part > 0) & (part < k)).sum(dim=1) for k in range(int(part.max()) + 1)], dim=1)
    shift = before.gather(1, part.clamp(min=0))
    return torch.where(part > 0, place - shift, torch.where(part == 0, place, prompt))
