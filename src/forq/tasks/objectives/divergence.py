"""How far a model's predictions have moved from an earlier state of it: the mean KL divergence over scored tokens.

A :class:`Reference` listens to one evaluation of a task and keeps, for every scored position, the
log-probabilities of the likeliest tokens and the probability of all others together. It listens to
later evaluations of the same rows and gives the mean of KL(then ‖ now), in nats a token.

Memory is bounded by :data:`KEPT_BYTES`: a position keeps as many tokens as fit. Where the whole
vocabulary fits, the divergence is exact. Otherwise the tokens that are not kept count as one, which
makes it a lower bound (merging outcomes never increases a divergence).

Listening costs no forward pass: the logits are those that the score is computed from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forq.errors import ConfigError
from forq.tokens.batches import Batch
from forq.tokens.model import LanguageModel, Reader

KEPT_BYTES = 64 << 20
"""Most bytes that a reference keeps."""

_ENTRY = 8
"""Bytes of a kept token: its number and its log-probability."""


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """What is kept of consecutive positions.

    Attributes:
        tokens: int32 [positions, k], the likeliest tokens.
        log_p: fp32 [positions, k], their log-probabilities.
        rest: fp32 [positions], the log-probability of all others together; −inf if there are none.
    """

    tokens: Tensor
    log_p: Tensor
    rest: Tensor


class Reference:
    """The predictions of a model on a task's rows, kept to compare later ones with.

    Args:
        positions: number of positions that an evaluation scores; it decides how many tokens each keeps.
    """

    def __init__(self, positions: int) -> None:
        self._most = max(1, KEPT_BYTES // (_ENTRY * max(1, positions)))
        self._kept: list[_Kept] = []
        self._sum, self._positions, self._next = 0.0, 0, 0

    def keeping(self, model: LanguageModel) -> nn.Module:
        """The model, with everything that an evaluation reads of it kept."""
        self._kept = []
        return _Overheard(model, self._keep)

    def comparing(self, model: LanguageModel) -> nn.Module:
        """The model, with everything that an evaluation reads of it compared with what was kept."""
        self._sum, self._positions, self._next = 0.0, 0, 0
        return _Overheard(model, self._compare)

    @property
    def mean(self) -> float:
        """The mean divergence of the last evaluation that was compared, in nats a token.

        NaN where predictions were not numbers, and infinite where a token that could come cannot come any more.

        Raises:
            ConfigError: that evaluation scored other positions than the one that was kept.
        """
        if not self._positions or self._next != len(self._kept):
            raise ConfigError(
                f"expected an evaluation of the rows that were kept ({len(self._kept)} pieces), found "
                f"{self._next}; compare the same rows"
            )
        mean = self._sum / self._positions
        return mean if math.isnan(mean) else max(0.0, mean)  # rounding alone makes it negative

    def _keep(self, logits: Tensor) -> None:
        k = min(self._most, logits.shape[1])
        total = logits.logsumexp(dim=1)
        tokens = logits.topk(k, dim=1).indices
        log_p = logits.gather(1, tokens) - total[:, None]
        self._kept.append(_Kept(tokens.int().cpu(), log_p.cpu(), _others(logits, tokens, total).cpu()))

    def _compare(self, logits: Tensor) -> None:
        kept = self._kept[self._next] if self._next < len(self._kept) else None
        if kept is None or len(kept.tokens) != len(logits):
            raise ConfigError("expected an evaluation of the rows that were kept, found others; compare the same rows")
        self._next += 1
        total = logits.logsumexp(dim=1)
        tokens = kept.tokens.long().to(logits.device)
        log_q = (logits.gather(1, tokens) - total[:, None]).double().cpu()
        log_p, rest = kept.log_p.double(), kept.rest.double()
        found = _terms(log_p, log_q).sum(dim=1)
        if tokens.shape[1] < logits.shape[1]:
            found += _terms(rest, _others(logits, tokens, total).double().cpu())
        self._sum += float(found.sum())
        self._positions += len(logits)


class _Overheard(nn.Module, LanguageModel):
    """A language model that shows every chunk of scored logits to a listener."""

    def __init__(self, model: LanguageModel, listener: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._inner, self._listener = (model,), listener  # in a tuple, so that it is not registered as a part
        self.config, self.device, self.training = model.config, model.device, model.training

    def takes_packed(self, part: Tensor) -> bool:
        return self._inner[0].takes_packed(part)

    def scored_logits(self, batch: Batch) -> Iterator[Tensor]:
        for logits in self._inner[0].scored_logits(batch):
            self._listener(logits)
            yield logits

    def reader(self, prompts: Sequence[Sequence[int]]) -> Reader:
        return self._inner[0].reader(prompts)


def _terms(log_p: Tensor, log_q: Tensor) -> Tensor:
    """p · (log p − log q), and 0 where p is 0, as for a token that the model masks."""
    p = log_p.exp()
    return torch.where(p == 0, 0.0, p * (log_p - log_q))


def _others(logits: Tensor, tokens: Tensor, total: Tensor) -> Tensor:
    """Log-probability of all tokens but the named ones, together; −inf if there are none. fp32 [positions]"""
    return logits.scatter(1, tokens, -torch.inf).logsumexp(dim=1) - total
