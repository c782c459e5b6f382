"""Command R, Cohere 2, GLM 4 and OLMo 2 and 3. Files keep the rows of all of them as transformers does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forq.checkpoints.containers.gguf.architectures.architecture import Architecture, Described
from forq.checkpoints.containers.gguf.architectures.common import (
    ATTENTION,
    GATED,
    LAYER_NORM,
    NORMS,
    OUTSIDE,
    QK_NORMS,
    TIED,
    WINDOWS,
    rms,
    sizes,
    windows,
)

_INSIDE = {"attn_norm": "input_layernorm", **ATTENTION, **GATED}


def _cohere(file: Described) -> dict[str, Any]:
    return {
        **sizes(file),
        **file.rope(),
        "layer_norm_eps": file.keys.real(LAYER_NORM),
        "logit_scale": file.keys.factor("logit_scale", 1.0),
        "attention_bias": file.has("blk.0.attn_q.bias"),
    }


def _command_r(file: Described) -> dict[str, Any]:
    return {**_cohere(file), "use_qk_norm": file.has("blk.0.attn_q_norm.weight")}


def _cohere2(file: Described) -> dict[str, Any]:
    return {**_cohere(file), **windows(file, file.keys.whole("attention.sliding_window"), 4)}


def _glm4(file: Described) -> dict[str, Any]:
    return {
        **sizes(file),
        **rms(file),
        **file.rope(partial=True),
        "attention_bias": file.has("blk.0.attn_q.bias"),
    }


def _olmo2(file: Described) -> dict[str, Any]:
    plain = {**sizes(file), **rms(file), **file.rope()}
    size = file.keys.get("attention.sliding_window", 0)
    if not size:
        return plain
    # OLMo 3 in a file: blocks with a window do without the scaling of positions.
    sliding = windows(file, file.keys.whole("attention.sliding_window"), 4)
    olmo3 = {"model_type": "olmo3", "architectures": ["Olmo3ForCausalLM"]}
    local = {"rope_type": "default", "rope_theta": plain["rope_theta"]}
    full = {**local, **plain.pop("rope_scaling", {})}
    return {**plain, **olmo3, **sliding, "rope_parameters": {"sliding_attention": local, "full_attention": full}}


ENTRIES: Mapping[str, Architecture] = {
    "command-r": Architecture(
        "cohere",
        "CohereForCausalLM",
        _command_r,
        TIED,
        {**_INSIDE, **QK_NORMS},
        keys=frozenset({LAYER_NORM, "logit_scale"}),
    ),
    "cohere2": Architecture(
        "cohere2", "Cohere2ForCausalLM", _cohere2, TIED, _INSIDE, keys=WINDOWS | {LAYER_NORM, "logit_scale"}
    ),
    "glm4": Architecture(
        "glm4",
        "Glm4ForCausalLM",
        _glm4,
        OUTSIDE,
        {
            **NORMS,
            **ATTENTION,
            "post_attention_norm": "post_self_attn_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        only={"rope.dimension_sections": (None, "a model of text alone")},
    ),
    "olmo2": Architecture(
        "olmo2",
        "Olmo2ForCausalLM",
        _olmo2,
        OUTSIDE,
        {
            **ATTENTION,
            **GATED,
            **QK_NORMS,
            "post_attention_norm": "post_attention_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
        keys=WINDOWS,
        local_magnitude=False,
    ),
}
