"""How token vectors become the vector of a text, as sentence-transformers names the ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from forq.tokens.model import Pooling


def text_vectors(states: Tensor, lengths: Sequence[int], pooling: Sequence[Pooling] = ("mean",)) -> Tensor:
    """The vector of each text, scaled to length 1: fp32 [rows, width · number of ways].

    Args:
        states: hidden states [rows, length, width]; those behind a text's end are not read.
        lengths: number of tokens of each text.
        pooling: the vectors of several ways stand one behind the other.
    """
    count = torch.tensor(lengths, device=states.device)[:, None]
    place = torch.arange(states.shape[1], device=states.device)
    inside = (place < count)[:, :, None]
    parts = [_WAYS[way](states.float(), inside, count) for way in pooling]
    return nn.functional.normalize(torch.cat(parts, dim=1), dim=1)


def _mean(states: Tensor, inside: Tensor, count: Tensor) -> Tensor:
    return states.masked_fill(~inside, 0.0).sum(dim=1) / count


def _by_root(states: Tensor, inside: Tensor, count: Tensor) -> Tensor:
    return _mean(states, inside, count) * count.sqrt()


def _first(states: Tensor, inside: Tensor, count: Tensor) -> Tensor:
    return states[:, 0]


def _last(states: Tensor, inside: Tensor, count: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), count[:, 0] - 1]


def _largest(states: Tensor, inside: Tensor, count: Tensor) -> Tensor:
    return states.masked_fill(~inside, -torch.inf).amax(dim=1)


def _rising(states: Tensor, inside: Tensor, count: Tensor) -> Tensor:
    """A mean in which token i counts i times."""
    weight = torch.arange(1, states.shape[1] + 1, device=states.device, dtype=torch.float32)[None, :, None]
    return (states.masked_fill(~inside, 0.0) * weight).sum(dim=1) / (count * (count + 1) / 2)


_WAYS: Mapping[Pooling, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _by_root,
    "weightedmean": _rising,
    "lasttoken": _last,
}
