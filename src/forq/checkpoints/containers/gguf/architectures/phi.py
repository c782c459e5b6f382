"""Phi 2 and 3, StarCoder 2, StableLM and Nemotron: decoders with Llama's attention and other feed-forward layers."""

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
    rms,
    sizes,
)

_UNGATED = {"ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_SHORT = "rope_factors_short.weight"


def _phi2(file: Described) -> dict[str, Any]:
    return {
        **sizes(file),
        **file.rope(partial=True),
        "layer_norm_eps": file.keys.real(LAYER_NORM),
        "hidden_act": "gelu_new",
    }


def _phi3(file: Described) -> dict[str, Any]:
    rope = file.rope(partial=True, by_factors=True)
    if (scaling := rope.get("rope_scaling")) is not None:
        expected = "1 (transformers' class scales positions by factors in a tensor alone)"
        raise file.keys.error(expected, "rope.scaling.factor", scaling["factor"])
    # llama.cpp ignores the window of these files.
    return {**sizes(file), **rms(file), **rope, "sliding_window": None}


def _long_factors(file: Described) -> tuple[str, ...]:
    if not file.has("rope_factors_long.weight"):
        return ()
    within = file.keys.whole("rope.scaling.original_context_length", file.context)
    return (f"positions are rotated by the factors for texts of up to {within} tokens, whatever the text's length",)


def _starcoder2(file: Described) -> dict[str, Any]:
    return {
        **sizes(file),
        **file.rope(),
        "norm_epsilon": file.keys.real(LAYER_NORM),
        "hidden_act": "gelu_pytorch_tanh",
        "use_bias": True,
        "sliding_window": None,
    }


def _stablelm(file: Described) -> dict[str, Any]:
    return {
        **sizes(file),
        **file.rope(partial=True),
        "layer_norm_eps": file.keys.real(LAYER_NORM),
        "use_qkv_bias": file.has("blk.0.attn_q.bias"),
        "qk_layernorm": file.has("blk.0.attn_q_norm.weight"),
        "use_parallel_residual": not file.has("blk.0.ffn_norm.weight"),
    }


def _nemotron(file: Described) -> dict[str, Any]:
    return {
        **sizes(file),
        **file.rope(partial=True),
        "norm_eps": file.keys.real(LAYER_NORM),
        "hidden_act": "relu2",
        "mlp_bias": file.has("blk.0.ffn_up.bias"),
        "attention_bias": file.has("blk.0.attn_q.bias"),
    }


ENTRIES: Mapping[str, Architecture] = {
    "phi2": Architecture(
        "phi",
        "PhiForCausalLM",
        _phi2,
        {**OUTSIDE, "output_norm": "model.final_layernorm"},
        {
            "attn_norm": "input_layernorm",
            **ATTENTION,
            "attn_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "attn_output": "self_attn.dense",
            "ffn_up": "mlp.fc1",
            "ffn_down": "mlp.fc2",
        },
        keys=frozenset({LAYER_NORM}),
    ),
    "phi3": Architecture(
        "phi3",
        "Phi3ForCausalLM",
        _phi3,
        OUTSIDE,
        {
            **NORMS,
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        factors=_SHORT,
        ignored=frozenset({"rope_factors_long.weight"}),
        notes=_long_factors,
    ),
    "starcoder2": Architecture(
        "starcoder2",
        "Starcoder2ForCausalLM",
        _starcoder2,
        OUTSIDE,
        {**NORMS, **ATTENTION, "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        keys=frozenset({LAYER_NORM}),
    ),
    "stablelm": Architecture(
        "stablelm",
        "StableLmForCausalLM",
        _stablelm,
        OUTSIDE,
        {
            **NORMS,
            **ATTENTION,
            **GATED,
            "attn_q_norm": "self_attn.q_layernorm.norms.{head}",
            "attn_k_norm": "self_attn.k_layernorm.norms.{head}",
        },
        keys=frozenset({LAYER_NORM}),
    ),
    "nemotron": Architecture(
        "nemotron",
        "NemotronForCausalLM",
        _nemotron,
        OUTSIDE,
        {**NORMS, **ATTENTION, **_UNGATED},
        norms_added=1.0,
        keys=frozenset({LAYER_NORM}),
    ),
}
