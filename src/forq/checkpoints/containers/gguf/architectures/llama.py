"""Llama and the models built like it: Mistral, SmolLM and Yi have ``llama`` too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forq.checkpoints.containers.gguf.architectures.architecture import Architecture, Described, interleaved
from forq.checkpoints.containers.gguf.architectures.common import ATTENTION, GATED, NORMS, OUTSIDE, QK_NORMS, rms, sizes

_INSIDE = {**NORMS, **ATTENTION, **GATED}
_ROTATED = {"attn_q": interleaved(lambda file: file.heads), "attn_k": interleaved(lambda file: file.kv_heads)}
_NO_ROPE_EVERY = 4
"""llama.cpp rotates nothing in every fourth block of SmolLM3; no key says so."""


def _plain(file: Described) -> dict[str, Any]:
    return {**sizes(file), **rms(file), **file.rope()}


def _biased(file: Described) -> dict[str, Any]:
    biases = {"attention_bias": file.has("blk.0.attn_q.bias"), "mlp_bias": file.has("blk.0.ffn_up.bias")}
    return {**_plain(file), **biases}


def _granite(file: Described) -> dict[str, Any]:
    # llama.cpp takes a missing factor, or 0, for none.
    keys = file.keys
    factors = {
        "embedding_multiplier": keys.factor("embedding_scale", 1.0),
        "residual_multiplier": keys.factor("residual_scale", 1.0),
        "attention_multiplier": keys.factor("attention.scale", file.head**-0.5),
        "logits_scaling": keys.real("logit_scale"),
    }
    return {**_biased(file), **factors}


def _smollm3(file: Described) -> dict[str, Any]:
    rotated = [int((layer + 1) % _NO_ROPE_EVERY != 0) for layer in range(file.layers)]
    return {**_biased(file), "no_rope_layers": rotated, "use_sliding_window": False}


ENTRIES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", "LlamaForCausalLM", _biased, OUTSIDE, _INSIDE, orders=_ROTATED),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", _plain, OUTSIDE, _INSIDE),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM", _plain, OUTSIDE, {**_INSIDE, **QK_NORMS}),
    "granite": Architecture(
        "granite",
        "GraniteForCausalLM",
        _granite,
        OUTSIDE,
        _INSIDE,
        orders=_ROTATED,
        keys=frozenset({"embedding_scale", "residual_scale", "attention.scale", "logit_scale"}),
        only={
            "rope.scaling.finetuned": (True, "a model that rotates queries and keys"),
            "expert_shared_feed_forward_length": (0, "a model without experts"),
            "deepstack_mapping": (None, "a model of text alone"),
        },
    ),
    "smollm3": Architecture("smollm3", "SmolLM3ForCausalLM", _smollm3, OUTSIDE, _INSIDE, orders=_ROTATED),
}
