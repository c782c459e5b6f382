"""Texts through an encoder: batches of them, and their last hidden states.

A forward lays short texts one after the other on lines of like length. Each token sees its own text only, and
positions begin anew with every text, so a text's numbers do not depend on its neighbours. Rows of SST-2 padded
to the longest of their batch are more padding than text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forq.errors import ConfigError
from forq.tokens.pretrained import pretrained

_LINE = 128
"""About how many tokens a line of gathered texts holds; attention costs its square."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts in tokens, what the tokenizer puts around them included.

    Attributes:
        input_ids: int64 [rows, length], padded on the right with 0.
        lengths: tokens of each row.
        labels: int64 [rows], the class of each.
        most_tokens: of one forward; None: no bound.
    """

    input_ids: Tensor
    lengths: tuple[int, ...]
    labels: Tensor
    most_tokens: int | None = None


def texts(rows: Sequence[Sequence[int]], labels: Sequence[int], most_tokens: int | None = None) -> Texts:
    """Rows of tokens as one batch."""
    padded = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    return Texts(padded, tuple(map(len, rows)), torch.tensor(labels), most_tokens)


def only(batch: Texts, rows: Sequence[int]) -> Texts:
    """Some rows of a batch."""
    lengths = tuple(batch.lengths[row] for row in rows)
    return Texts(batch.input_ids[list(rows), : max(lengths)], lengths, batch.labels[list(rows)])


def hidden(model: nn.Module, batch: Texts) -> Tensor:
    """Last hidden states [rows, length, width] of every text; what stands in the padding means nothing.

    Args:
        model: an encoder of transformers in eval mode, with or without a head.

    Raises:
        ConfigError: the model is in training mode, or a text is longer than its positions.
    """
    lm = pretrained(model)
    longest = max(batch.lengths)
    # RoBERTa's kin keep the positions up to their padding token's number free.
    first = int(getattr(lm.base_model.embeddings, "padding_idx", -1)) + 1
    limit = lm.config.max_position_embeddings - first
    if lm.training:
        raise ConfigError("the model is in training mode, dropout differs between + and −: call model.eval()")
    if longest > limit:
        raise ConfigError(f"rows of {longest} tokens, but the model has {limit} positions: lower max_length")
    line, start, width = _laid_out(batch.lengths)
    place = torch.arange(longest)
    real = place < torch.tensor(batch.lengths)[:, None]
    lines, columns = line[:, None].expand_as(real), start[:, None] + place
    count = int(line.max()) + 1
    ids = torch.zeros(count, width, dtype=torch.int64)
    part = torch.full((count, width), -1)
    positions = torch.full((count, width), first)
    where = (lines[real], columns[real])
    ids[where] = batch.input_ids[:, :longest][real]
    part[where] = torch.arange(len(real))[:, None].expand_as(real)[real]
    positions[where] = first + place.expand_as(real)[real]
    apart = (part[:, None, :] != part[:, :, None])[:, None].to(lm.device)
    # Added to the scores: every attention of transformers takes a mask of this kind.
    mask = torch.zeros(apart.shape, dtype=lm.dtype, device=lm.device).masked_fill_(apart, torch.finfo(lm.dtype).min)
    states = lm.base_model(
        input_ids=ids.to(lm.device), attention_mask=mask, position_ids=positions.to(lm.device)
    ).last_hidden_state
    return states[lines.to(lm.device), columns.clamp(max=width - 1).to(lm.device)]


def mean_vectors(states: Tensor, lengths: Sequence[int]) -> Tensor:
    """Mean over each text's tokens, scaled to length 1: fp32 [rows, width]."""
    count = torch.tensor(lengths, device=states.device)[:, None]
    inside = (torch.arange(states.shape[1], device=states.device) < count)[:, :, None]
    mean = states.float().masked_fill(~inside, 0.0).sum(dim=1) / count
    return nn.functional.normalize(mean, dim=1)


def _laid_out(lengths: Sequence[int]) -> tuple[Tensor, Tensor, int]:
    """Line and first column of every text, and the width of the lines.

    As many lines as give each about ``_LINE`` tokens, but none that the longest text would leave half empty; the
    longest texts first, each on the line that is emptiest.
    """
    total = sum(lengths)
    used = [0] * max(1, min(-(-total // _LINE), total // max(lengths)))
    line, start = [0] * len(lengths), [0] * len(lengths)
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        line[row] = used.index(min(used))
        start[row] = used[line[row]]
        used[line[row]] += lengths[row]
    return torch.tensor(line), torch.tensor(start), max(used)
