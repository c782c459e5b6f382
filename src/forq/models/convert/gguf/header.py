"""The keys of a GGUF file's architecture, from a configuration of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints.containers.gguf.write import Value
from forq.errors import FormatError

ARCHITECTURES: Mapping[str, str] = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""general.architecture by model_type."""

_PLAIN = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
_ROPES: Mapping[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "yarn": {"factor", "original_max_position_embeddings"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
}
"""Settings of each scaling of rotary positions that a file can state."""


def architecture(config: Any) -> str:
    """The architecture of a configuration.

    Raises:
        FormatError: the model has no such architecture, or a setting that its keys cannot state.
    """
    kind = ARCHITECTURES.get(config.model_type)
    if kind is None:
        raise FormatError(
            f"--to gguf: expected a model_type among {', '.join(ARCHITECTURES)}, found {config.model_type!r}; "
            "export to float16, and convert the folder with llama.cpp's convert_hf_to_gguf.py"
        )
    activation = getattr(config, "hidden_act", "silu")
    # Where use_sliding_window is off Qwen's configurations know no window; Llama's class has none whatever a file says.
    window = None if config.model_type == "llama" else getattr(config, "sliding_window", None)
    wrong = {
        "hidden_act": None if activation == "silu" else activation,
        "sliding_window": window if window and window < config.max_position_embeddings else None,
        "attention_bias": (getattr(config, "attention_bias", False) or None) if kind == "qwen3" else None,
    }
    for key, value in wrong.items():
        if value is not None:
            raise FormatError(
                f"--to gguf: {key} is {value!r}, which llama.cpp does not compute for architecture {kind}; "
                "export to float16"
            )
    return kind


def keys(config: Any, name: str) -> dict[str, Value]:
    """Values of the header without those of the tokenizer.

    Args:
        config: a configuration of transformers.
        name: of the model.

    Raises:
        FormatError: see :func:`architecture`.
    """
    kind = architecture(config)
    head = _head(config)
    values: dict[str, Value] = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": head,
        "vocab_size": config.vocab_size,
        **_rope(config),
    }
    general: dict[str, Value] = {
        "general.architecture": kind,
        "general.type": "model",
        "general.name": name,
        "general.quantization_version": 2,
    }
    return general | {f"{kind}.{key}": value for key, value in values.items()}


def rope_factors(config: Any) -> Tensor | None:
    """Divisors of the rotary frequencies, float32 (head / 2,), which llama.cpp reads as a tensor; for llama3 alone."""
    rope = _parameters(config)
    if _type(rope) != "llama3":
        return None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    head = _head(config)
    plain = 1.0 / (float(rope["rope_theta"]) ** (torch.arange(0, head, 2, dtype=torch.int64).float() / head))
    factors: Tensor = plain / scaled.float()
    return factors


def _head(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _parameters(config: Any) -> dict[str, Any]:
    return dict(config.rope_parameters)


def _type(rope: Mapping[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _rope(config: Any) -> dict[str, Value]:
    """Keys of the rotary positions.

    Raises:
        FormatError: their scaling is of another kind, or has a setting without a key.
    """
    rope = _parameters(config)
    kind = _type(rope)
    if kind not in _ROPES:
        raise FormatError(
            f"--to gguf: expected rotary positions of type {', '.join(_ROPES)}, found {kind!r}; export to float16"
        )
    strange = [key for key, value in rope.items() if value is not None and key not in _PLAIN | _ROPES[kind]]
    if rope.get("partial_rotary_factor") not in (None, 1.0):
        strange.append("partial_rotary_factor")
    if strange:
        raise FormatError(f"--to gguf: rotary positions have {', '.join(strange)}, which a file cannot state here")
    values: dict[str, Value] = {"rope.freq_base": float(rope["rope_theta"])}
    if kind in ("linear", "yarn"):
        values |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        values["rope.scaling.original_context_length"] = int(original)
    return values
