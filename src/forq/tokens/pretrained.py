"""Models of transformers for losses and text generation, with backbone and output head called separately.

The backbone runs on whole rows. The output head is then applied only at positions that predict an answer
token, chunk by chunk, so that the full logits are never in memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from forq.errors import ConfigError
from forq.tokens.batches import Batch, positions
from forq.tokens.forward import forward_of
from forq.tokens.model import LanguageModel, ModelConfig, Reader

CHUNK_BYTES = 32 << 20
"""Size limit of the fp32 logits in memory at a time."""

_PACKS = frozenset(
    (
        *("llama", "mistral", "ministral3", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3"),
        *("stablelm", "olmo", "olmo2", "olmo3", "granite", "smollm3", "cohere", "cohere2", "starcoder2", "glm", "glm4"),
        *("helium", "nemotron", "arcee", "seed_oss", "hunyuan_v1_dense", "exaone4", "ernie4_5", "opt", "falcon"),
        *("xglm", "gpt2", "gpt_bigcode", "gptj", "codegen", "gpt_neox"),
    )
)
"""Architectures tested with a 4-D mask and restarting positions; others get a row for each option."""


_DIVIDED = ("granite", "minicpm3")
_CAPPED = ("gemma2", "gemma3", "gemma4", "vaultgemma", "nanochat", "beam", "inkling2", "mistral_large4")
"""Beginnings of the names of families whose logits are divided or capped, in transformers 5.23."""


class PretrainedConfig(ModelConfig, Protocol):
    """The configuration of a model of transformers."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int: ...
    @property
    def _attn_implementation(self) -> str: ...


class Output(Protocol):
    """What a backbone returns."""

    @property
    def last_hidden_state(self) -> Tensor: ...
    @property
    def past_key_values(self) -> object: ...


class Backbone(Protocol):
    """A model without its head."""

    @property
    def forward(self) -> Callable[..., Output]: ...
    @property
    def embeddings(self) -> nn.Module: ...
    def __call__(self, **inputs: object) -> Output: ...


class PretrainedModel(Protocol):
    """What forq uses of transformers' ``PreTrainedModel``."""

    @property
    def config(self) -> PretrainedConfig: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def training(self) -> bool: ...
    @property
    def base_model(self) -> Backbone: ...
    def get_output_embeddings(self) -> nn.Module: ...


def pretrained(model: nn.Module) -> PretrainedModel:
    """Cast a module to the type of transformers' models, unchecked."""
    return cast(PretrainedModel, model)


def language_model(model: nn.Module) -> LanguageModel:
    """The model's interface for losses and text generation; a model of transformers is wrapped."""
    return model if isinstance(model, LanguageModel) else Pretrained(model)


class Pretrained(LanguageModel):
    """A causal language model of transformers."""

    config: PretrainedConfig

    def __init__(self, model: nn.Module) -> None:
        self._model = pretrained(model)
        self.config, self.device, self.training = self._model.config, self._model.device, self._model.training

    def takes_packed(self, part: Tensor) -> bool:
        """Whether the architecture supports the mask of packed options.

        The mask replaces that of a sliding window, so no answer may reach back beyond the window. Models
        with ALiBi are excluded, because ALiBi counts columns instead of positions.
        """
        config = self.config
        if config.model_type not in _PACKS or config._attn_implementation not in ("sdpa", "eager"):
            return False
        limit = getattr(config, "max_position_embeddings", None)
        if getattr(config, "alibi", False) or (limit is not None and part.shape[1] > limit):
            return False
        kinds = set(getattr(config, "layer_types", None) or ("sliding_attention",))
        window = getattr(config, "sliding_window", None) if "sliding_attention" in kinds else None
        if not kinds <= {"full_attention", "sliding_attention"}:
            return False
        return window is None or int(positions(part).max()) < window

    def scored_logits(self, batch: Batch) -> Iterator[Tensor]:
        """See :meth:`LanguageModel.scored_logits`; computed chunk by chunk."""
        with forward_of(batch.numbered):
            hidden = self._hidden(batch)[batch.row.to(self.device), batch.column.to(self.device)]
        of_row = torch.tensor(batch.numbered)[batch.row].tolist()
        head = self._model.get_output_embeddings()
        chunk = max(1, CHUNK_BYTES // (4 * self.config.vocab_size))
        for start in range(0, len(hidden), chunk):
            with forward_of(of_row[start : start + chunk]):
                logits = head(hidden[start : start + chunk])
            yield adjusted(self.config, logits.float())

    def reader(self, prompts: Sequence[Sequence[int]]) -> Reader:
        """See :meth:`LanguageModel.reader`; keys and values are cached."""
        return _CachedReader(self._model, prompts)

    def _hidden(self, batch: Batch) -> Tensor:
        """Last hidden states [rows, length, width] of the backbone."""
        inputs = {"input_ids": batch.input_ids.to(self.device)}
        if batch.part is not None:
            part = batch.part.to(self.device)
            inputs["position_ids"] = positions(part)
            inputs["attention_mask"] = _packed_mask(part, self.config._attn_implementation)
        # No mask is needed: rows are padded on the right, behind every scored position.
        hidden = getattr(self._model.base_model(**inputs, use_cache=False), "last_hidden_state", None)
        if not isinstance(hidden, Tensor):
            raise ConfigError(
                f"{type(self._model).__name__}: expected a base_model that returns last_hidden_state, found none; pass "
                "the causal language model itself, not a wrapper around it"
            )
        return hidden


class _CachedReader:
    """Rows that grow token by token; padded on the left, with positions counted from each row's first token."""

    def __init__(self, model: PretrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        device, longest = model.device, max(map(len, prompts))
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self._model = model
        self._cache: object = None
        self._ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        self._mask = (torch.arange(longest, device=device) >= longest - lengths[:, None]).long()
        self._takes_positions = "position_ids" in inspect.signature(model.base_model.forward).parameters

    def __call__(self, tokens: Sequence[int] | None) -> Tensor:
        model = self._model
        if tokens is not None:
            self._ids = self._ids.new_tensor(tokens)[:, None]
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        places = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -self._ids.shape[1] :]
        further = {"position_ids": places} if self._takes_positions else {}
        out = model.base_model(
            input_ids=self._ids, attention_mask=self._mask, past_key_values=self._cache, use_cache=True, **further
        )
        self._cache = out.past_key_values
        return adjusted(model.config, model.get_output_embeddings()(out.last_hidden_state[:, -1]).float())


def adjusted(config: PretrainedConfig, logits: Tensor) -> Tensor:
    """Apply what follows the head in some families: a factor (Cohere), a divisor (Granite), a cap (Gemma 2).

    Other families may have such a setting in their file too, and do not use it.
    """
    kind = config.model_type
    if kind.startswith("cohere"):
        logits = logits * getattr(config, "logit_scale")  # noqa: B009
    if kind.startswith(_DIVIDED) and (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if kind.startswith("hyperclovax") and (factor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits * factor
    if kind.startswith(_CAPPED) and (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits


def _packed_mask(part: Tensor, attention: str) -> Tensor:
    """[rows, 1, length, length]: a token attends to the prompt and its own option, up to itself.

    Scaled-dot-product attention takes booleans for every dtype; eager attention adds the mask to its scores.
    """
    length = part.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=part.device).tril()
    visible = (causal & ((part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None])))[:, None]
    if attention == "sdpa":
        return visible
    hidden = torch.finfo(torch.float32).min
    return torch.zeros(visible.shape, device=part.device).masked_fill(~visible, hidden)
