"""Cross-entropy on the answer tokens of causal language models, in fp32.

A batch is cut into forwards of rows of similar length (:func:`forq.tokens.batches.pieces`). A model
returns logits at the scored positions only (:meth:`forq.tokens.model.LanguageModel.scored_logits`).
Logits for the whole sequence are never stored: published zeroth-order code spends 1–2 GB on positions
that it masks away afterwards.

Every function here is differentiable. Forward-only callers wrap it in ``torch.inference_mode()``.
With gradients, the head's chunks are kept for the backward pass, so memory is bounded by the number
of answer tokens and not by the chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from forq.errors import ConfigError
from forq.tasks.objectives.predictions import Predictions, Uniform, drawn_from
from forq.tokens.batches import Batch, only, pieces, unpacked
from forq.tokens.model import LanguageModel
from forq.tokens.pretrained import language_model
from forq.tokens.sharing import measured


def token_nll(model: nn.Module, batch: Batch) -> Tensor:
    """Negative log-likelihood of each answer token, in nats: fp32 [answers].

    Args:
        model: a causal language model from :func:`forq.load` or transformers, in eval mode. For a
            peft model, pass ``get_base_model()``; it contains the adapters.

    Raises:
        ConfigError: the model is in training mode, has fewer positions than the rows have tokens, or
            has no backbone.
    """
    lm = language_model(model)
    batch = batch if batch.part is None or lm.takes_packed(batch.part) else unpacked(batch)
    split = pieces(batch)
    if len(split) == 1:
        return _token_nll(lm, batch)
    parts = [only(batch, rows) for rows in split]
    counts = [len(places) for _, places in parts]
    tokens = torch.cat(measured(counts, lm.device, lambda number: _token_nll(lm, parts[number][0])))
    # Restore the batch's order, so that callers do not depend on the pieces.
    return tokens[torch.cat([places for _, places in parts]).argsort().to(tokens.device)]


def mean_nll(model: nn.Module, batch: Batch) -> Tensor:
    """The mean of :func:`token_nll` over the answer tokens: fp32 scalar, nats per token."""
    return token_nll(model, batch).mean()


def by_row(nll: Tensor, batch: Batch) -> Tensor:
    """The contribution of every answer to the mean over all answer tokens: fp64 [answers], of that mean.

    An answer contributes Σ nll · answers / tokens, so that a long one counts for more, as it does in the mean.
    """
    sums = torch.stack([part.sum() for part in torch.split(nll.double(), list(batch.lengths))])
    return sums * (len(sums) / len(nll))


def log_likelihoods(model: nn.Module, batch: Batch, *, normalise: bool = True) -> Tensor:
    """Log-likelihood of each answer: fp32 [rows, options].

    Args:
        normalise: divide by the answer's number of tokens, so that long answers have no disadvantage.
    """
    parts = torch.split(token_nll(model, batch), list(batch.lengths))
    # One sum per answer, because index_add has no fixed order of additions on a GPU.
    found = torch.stack([-part.mean() if normalise else -part.sum() for part in parts])
    return found.view(-1, batch.options)


def token_predictions(model: nn.Module, batch: Batch, drawn: Tensor | None, uniform: Uniform) -> Predictions:
    """Loss of the answer tokens, and the log-probabilities of tokens that the model itself draws in their places.

    Args:
        drawn: the tokens that were drawn at the point itself; None: draw them now.
        uniform: numbers to draw with.
    """
    lm = language_model(model)
    batch = batch if batch.part is None or lm.takes_packed(batch.part) else unpacked(batch)
    parts = [only(batch, rows) for rows in pieces(batch)]
    order = torch.cat([places for _, places in parts]).argsort()
    ready = uniform(len(batch.target)) if drawn is None else drawn
    found = [_token_predictions(lm, piece, ready[places], drawn is None) for piece, places in parts]
    nll, log_p, tokens = (torch.cat(column)[order.to(lm.device)] for column in zip(*found, strict=True))
    row = torch.arange(len(batch.lengths)).repeat_interleave(torch.tensor(batch.lengths))
    weights = torch.full((len(row),), 1.0 / len(row), dtype=torch.float64)
    each = by_row(nll, batch).cpu()
    return Predictions(float(nll.mean()), each, log_p.double().cpu(), weights, row, tokens.cpu())


def _token_predictions(lm: LanguageModel, batch: Batch, ready: Tensor, draw: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each answer token its loss, the log-probability of the token drawn in its place, and that token."""
    _check(lm, batch)
    target, found, at = batch.target.to(lm.device), [], 0
    for logits in lm.scored_logits(batch):
        some = slice(at, at + len(logits))
        tokens = drawn_from(logits, ready[some]) if draw else ready[some].to(logits.device)
        nll = cross_entropy(logits, target[some], reduction="none")
        # log p = logit − log Σ exp, and the latter is what the loss holds: a second pass over the logits is saved.
        chosen, aimed = (logits.gather(1, t[:, None])[:, 0].double() for t in (tokens, target[some]))
        found.append((nll, chosen - (nll.double() + aimed), tokens))
        at += len(logits)
    nll, log_p, tokens = (torch.cat(column) for column in zip(*found, strict=True))
    return nll, log_p, tokens


def _token_nll(lm: LanguageModel, batch: Batch) -> Tensor:
    _check(lm, batch)
    target, losses, at = batch.target.to(lm.device), [], 0
    for logits in lm.scored_logits(batch):
        losses.append(cross_entropy(logits, target[at : at + len(logits)], reduction="none"))
        at += len(logits)
    return torch.cat(losses)


def _check(lm: LanguageModel, batch: Batch) -> None:
    if lm.training:
        raise ConfigError("the model is in training mode, dropout differs between + and −: call model.eval()")
    length, limit = batch.input_ids.shape[1], getattr(lm.config, "max_position_embeddings", None)
    if limit is not None and length > limit:
        raise ConfigError(f"rows of {length} tokens, but the model has {limit} positions: lower max_length")
