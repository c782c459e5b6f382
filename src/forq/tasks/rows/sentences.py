"""Batches of texts for an encoder, and the last hidden states of the texts.

A forward puts short texts one after the other on lines of similar length. A token attends to its own
text only, and positions restart with each text, so a text's numbers do not depend on its neighbours.
Without this, SST-2 rows padded to the longest of their batch would be more padding than text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forq.errors import ConfigError
from forq.tokens.pretrained import pretrained

_LINE = 128
"""Approximate number of tokens in a line; the cost of attention grows with its square."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts in tokens, including the tokens that the tokenizer puts around them.

    Attributes:
        input_ids: int64 [rows, length], padded on the right with 0.
        lengths: number of tokens in each row.
        labels: the class of each row, int64 [rows].
        most_tokens: maximum number of tokens in one forward; None: no limit.
        second: the place in each row where tokens of type 1 begin, as BERT tells the second of two texts from the
            first; empty if no row has two texts.
    """

    input_ids: Tensor
    lengths: tuple[int, ...]
    labels: Tensor
    most_tokens: int | None = None
    second: tuple[int, ...] = ()


def texts(
    rows: Sequence[Sequence[int]],
    labels: Sequence[int],
    most_tokens: int | None = None,
    second: Sequence[int] = (),
) -> Texts:
    """Pack rows of tokens into a batch."""
    padded = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    lengths = tuple(map(len, rows))
    typed = any(place < length for place, length in zip(second, lengths, strict=False))
    return Texts(padded, lengths, torch.tensor(labels), most_tokens, tuple(second) if typed else ())


def only(batch: Texts, rows: Sequence[int]) -> Texts:
    """A batch of the given rows of a batch."""
    lengths = tuple(batch.lengths[row] for row in rows)
    second = tuple(batch.second[row] for row in rows) if batch.second else ()
    return Texts(batch.input_ids[list(rows), : max(lengths)], lengths, batch.labels[list(rows)], second=second)


def hidden(model: nn.Module, batch: Texts) -> Tensor:
    """The last hidden states of each text [rows, length, width]; values at padding are undefined.

    Args:
        model: an encoder from transformers in eval mode, with or without a head.

    Raises:
        ConfigError: the model is in training mode, or has fewer positions than a text has tokens.
    """
    lm = pretrained(model)
    longest = max(batch.lengths)
    # RoBERTa and its relatives number positions from padding_idx + 1.
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
    further = {}
    if batch.second and getattr(lm.config, "type_vocab_size", 0) > 1:
        types = torch.zeros(count, width, dtype=torch.int64)
        types[where] = (place >= torch.tensor(batch.second)[:, None]).long()[real]
        further["token_type_ids"] = types.to(lm.device)
    positions[where] = first + place.expand_as(real)[real]
    apart = (part[:, None, :] != part[:, :, None])[:, None].to(lm.device)
    # An additive mask, which every attention implementation of transformers accepts.
    mask = torch.zeros(apart.shape, dtype=lm.dtype, device=lm.device).masked_fill_(apart, torch.finfo(lm.dtype).min)
    states = lm.base_model(
        input_ids=ids.to(lm.device), attention_mask=mask, position_ids=positions.to(lm.device), **further
    ).last_hidden_state
    return states[lines.to(lm.device), columns.clamp(max=width - 1).to(lm.device)]


def _laid_out(lengths: Sequence[int]) -> tuple[Tensor, Tensor, int]:
    """The line and the first column of each text, and the width of the lines.

    A line gets about ``_LINE`` tokens, or more if the longest text needs them. Texts are placed in
    order of length, longest first, each on the line with the fewest tokens.
    """
    total = sum(lengths)
    used = [0] * max(1, min(-(-total // _LINE), total // max(lengths)))
    line, start = [0] * len(lengths), [0] * len(lengths)
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        line[row] = used.index(min(used))
        start[row] = used[line[row]]
        used[line[row]] += lengths[row]
    return torch.tensor(line), torch.tensor(start), max(used)
