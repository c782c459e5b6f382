"""Cross-entropy on the answer tokens of causal language models, in fp32.

The backbone runs once on the whole batch; the output head then sees only the positions that predict an answer
token, a chunk at a time. Full logits over the vocabulary never exist: they are the 1–2 GB that published
zeroth-order code spends on positions it masks away afterwards.

Every function here is differentiable. Forward-only callers wrap it in ``torch.inference_mode()``; under grad
the head's chunks are kept for the way back, so there memory is bounded by the answers, not by the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from forq.core import ConfigError

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
    facts: tuple[str, ...] = ()


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
    device = lm.device
    hidden = _hidden(lm, batch)[batch.row.to(device), batch.column.to(device)]
    target = batch.target.to(device)
    head = lm.get_output_embeddings()
    chunk = max(1, _CHUNK_BYTES // (4 * lm.config.vocab_size))
    return torch.cat(
        [
            cross_entropy(bent(lm.config, head(some).float()), right, reduction="none")
            for some, right in zip(torch.split(hidden, chunk), torch.split(target, chunk), strict=True)
        ]
    )


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


def unpacked(batch: Batch) -> Batch:
    """The same answers with one row per option: right for every architecture, ``options`` times the work."""
    if batch.part is None:
        return batch
    positions = _positions(batch.part)
    rows = []
    for answer in range(len(batch.lengths)):
        row, option = divmod(answer, batch.options)
        part = batch.part[row]
        rows.append(batch.input_ids[row][(part == 0) | (part == option + 1)])
    return Batch(
        input_ids=nn.utils.rnn.pad_sequence(rows, batch_first=True),
        row=torch.repeat_interleave(torch.tensor(batch.lengths)),
        column=positions[batch.row, batch.column],
        target=batch.target,
        lengths=batch.lengths,
        options=batch.options,
        labels=batch.labels,
    )


def _hidden(lm: Any, batch: Batch) -> Tensor:
    """Last hidden states [rows, length, width] of the backbone."""
    _check(lm, batch)
    inputs = {"input_ids": batch.input_ids.to(lm.device)}
    if batch.part is not None:
        part = batch.part.to(lm.device)
        inputs["position_ids"] = _positions(part)
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
    return kinds <= {"full_attention", "sliding_attention"} and (window is None or int(_positions(part).max()) < window)


def _positions(part: Tensor) -> Tensor:
    """Position ids that start anew after the prompt for each option: int64 [rows, length]."""
    place = torch.arange(part.shape[1], device=part.device).expand_as(part)
    prompt = (part == 0).sum(dim=1, keepdim=True)
    before = torch.stack([((part > 0) & (part < k)).sum(dim=1) for k in range(int(part.max()) + 1)], dim=1)
    shift = before.gather(1, part.clamp(min=0))
    return torch.where(part > 0, place - shift, torch.where(part == 0, place, prompt))


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
