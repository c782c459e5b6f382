"""Cross-entropy on the answer tokens of causal language models, in fp32.

The backbone runs on the rows of a batch, in pieces of like length (:func:`forq.tokens.batches.pieces`); the output head then
sees only the positions that predict an answer token, a chunk at a time. Full logits over the vocabulary never exist:
they are the 1–2 GB that published zeroth-order code spends on positions it masks away afterwards.

Every function here is differentiable. Forward-only callers wrap it in ``torch.inference_mode()``; under grad
the head's chunks are kept for the way back, so there memory is bounded by the answers, not by the chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from forq.errors import ConfigError
from forq.tokens.batches import Batch, only, pieces, positions, unpacked

_CHUNK_BYTES = 32 << 20
"""fp32 logits in memory at one time."""

_PACKS = frozenset(
    (
        *("llama", "mistral", "ministral3", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3"),
        *("stablelm", "olmo", "olmo2", "olmo3", "granite", "smollm3", "cohere", "cohere2", "starcoder2", "glm", "glm4"),
        *("helium", "nemotron", "arcee", "seed_oss", "hunyuan_v1_dense", "exaone4", "ernie4_5", "opt", "falcon"),
        *("xglm", "gpt2", "gpt_bigcode", "gptj", "codegen", "gpt_neox"),
    )
)
"""Architectures tested to take a 4-D mask and restarting positions; the others get one row per option."""


def token_nll(model: nn.Module, batch: Batch) -> Tensor:
    """Negative log-likelihood of each answer token, in nats: fp32 [answers].

    Args:
        model: a causal language model of transformers, in eval mode. Of a model wrapped by peft, hand over
            the wrapped one (``get_base_model()``); the adapters sit inside it.

    Raises:
        ConfigError: the model is in training mode, has fewer positions than the rows are long, or has no
            backbone.
    """
    lm: Any = model
    batch = batch if batch.part is None or _packs(lm, batch.part) else unpacked(batch)
    split = pieces(batch)
    if len(split) == 1:
        return _token_nll(lm, batch)
    found = [only(batch, rows) for rows in split]
    tokens = torch.cat([_token_nll(lm, piece) for piece, _ in found])
    # Back in the batch's own order: what is made of the tokens does not know the pieces.
    return tokens[torch.cat([places for _, places in found]).argsort().to(tokens.device)]


def mean_nll(model: nn.Module, batch: Batch) -> Tensor:
    """Mean of :func:`token_nll` over the answer tokens: fp32 scalar, nats per token."""
    return token_nll(model, batch).mean()


def log_likelihoods(model: nn.Module, batch: Batch, *, normalise: bool = True) -> Tensor:
    """Log-likelihood of every answer: fp32 [rows, options].

    Args:
        normalise: divide by the answer's length in tokens, so that long answers are not at a disadvantage.
    """
    parts = torch.split(token_nll(model, batch), list(batch.lengths))
    # One sum per answer, not index_add: that one adds in no fixed order on a GPU.
    found = torch.stack([-part.mean() if normalise else -part.sum() for part in parts])
    return found.view(-1, batch.options)


def choice_nll(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy over the length-normalised log-likelihoods of the options (QZO, MeZO).

    Returns:
        fp32 [rows], −log softmax(ℓ)[label]; bool [rows], whether the right option is the likeliest.

    Raises:
        ConfigError: the batch has no labels.
    """
    if batch.labels is None:
        raise ConfigError("a choice needs batches with labels, found a batch without")
    found = log_likelihoods(model, batch)
    labels = batch.labels.to(found.device)
    return cross_entropy(found, labels, reduction="none"), found.argmax(dim=1) == labels


def _token_nll(lm: Any, batch: Batch) -> Tensor:
    # A model that is a graph gives logits, and has no backbone or head to be asked for.
    scored = lm.scored_logits if hasattr(lm, "scored_logits") else partial(_scored_logits, lm)
    _check(lm, batch)
    target, found, at = batch.target.to(lm.device), [], 0
    for logits in scored(batch):
        found.append(cross_entropy(logits, target[at : at + len(logits)], reduction="none"))
        at += len(logits)
    return torch.cat(found)


def _scored_logits(lm: Any, batch: Batch) -> Iterator[Tensor]:
    """Logits of the answers' places, fp32, a chunk of answers at a time in their order."""
    hidden = _hidden(lm, batch)[batch.row.to(lm.device), batch.column.to(lm.device)]
    head = lm.get_output_embeddings()
    chunk = max(1, _CHUNK_BYTES // (4 * lm.config.vocab_size))
    for some in torch.split(hidden, chunk):
        yield bent(lm.config, head(some).float())


def _hidden(lm: Any, batch: Batch) -> Tensor:
    """Last hidden states [rows, length, width] of the backbone."""
    inputs = {"input_ids": batch.input_ids.to(lm.device)}
    if batch.part is not None:
        part = batch.part.to(lm.device)
        inputs["position_ids"] = positions(part)
        inputs["attention_mask"] = _mask(part, lm.config._attn_implementation)
    # Without a mask: rows are padded on the right, where no scored position looks.
    hidden = getattr(lm.base_model(**inputs, use_cache=False), "last_hidden_state", None)
    if not isinstance(hidden, Tensor):
        raise ConfigError(
            f"{type(lm).__name__}: its base_model returns no last_hidden_state; hand over the causal "
            "language model itself, not a wrapper around it"
        )
    return hidden


def _check(lm: Any, batch: Batch) -> None:
    if lm.training:
        raise ConfigError("the model is in training mode, dropout differs between + and −: call model.eval()")
    length, limit = batch.input_ids.shape[1], getattr(lm.config, "max_position_embeddings", None)
    if limit is not None and length > limit:
        raise ConfigError(f"rows of {length} tokens, but the model has {limit} positions: lower max_length")


def bent(config: Any, logits: Tensor) -> Tensor:
    """What an architecture does to its logits after the head: a factor (Cohere), a divisor (Granite), a cap (Gemma)."""
    if config.model_type.startswith("cohere"):  # others have the setting too, and leave it
        logits = logits * config.logit_scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def _packs(lm: Any, part: Tensor) -> bool:
    """Whether options can stand beside each other in the rows of this batch.

    The mask replaces a sliding window's, so no answer may reach back further than the window. ALiBi counts columns,
    not positions.
    """
    config = lm.config
    if config.model_type not in _PACKS or config._attn_implementation not in ("sdpa", "eager"):
        return False
    limit = getattr(config, "max_position_embeddings", None)
    if getattr(config, "alibi", False) or (limit is not None and part.shape[1] > limit):
        return False
    kinds = set(getattr(config, "layer_types", None) or ("sliding_attention",))
    window = getattr(config, "sliding_window", None) if "sliding_attention" in kinds else None
    return kinds <= {"full_attention", "sliding_attention"} and (window is None or int(positions(part).max()) < window)


def _mask(part: Tensor, attention: str) -> Tensor:
    """[rows, 1, length, length]: a token sees the prompt and its own option, as far as itself.

    Scaled-dot-product attention takes truth values, whatever the dtype of the model; the eager one adds the
    mask to its scores.
    """
    length = part.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=part.device).tril()
    visible = (causal & ((part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None])))[:, None]
    if attention == "sdpa":
        return visible
    hidden = torch.finfo(torch.float32).min
    return torch.zeros(visible.shape, device=part.device).masked_fill(~visible, hidden)
