"""GPT-2, GPT-NeoX, MPT, BLOOM and Falcon: queries, keys and values in one matrix, biases, layer norms.

llama.cpp computes the GELU of all of them by its tanh formula; so does forq, where transformers' class
has a setting for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forq.checkpoints.containers.gguf.architectures.architecture import Architecture, Described, together
from forq.checkpoints.containers.gguf.architectures.common import LAYER_NORM

_ALIBI = 8.0
_GELU = "gelu_pytorch_tanh"
_FOUR = {"ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h"}
_TWO_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def _check_four(file: Described) -> None:
    """Refuse another width of the feed-forward layers than transformers' class has."""
    if file.hidden != 4 * file.width:
        raise file.keys.error(f"{4 * file.width}, four times the width,", "feed_forward_length", file.hidden)


def _gpt2(file: Described) -> dict[str, Any]:
    return {
        "n_embd": file.whole_width,
        "n_layer": file.layers,
        "n_head": file.heads,
        "n_inner": file.hidden,
        "n_positions": file.context,
        "layer_norm_epsilon": file.keys.real(LAYER_NORM),
        "activation_function": "gelu_new",
    }


def _gptneox(file: Described) -> dict[str, Any]:
    parallel = file.keys.get("use_parallel_residual")
    if not isinstance(parallel, bool):
        raise file.keys.error("true or false", "use_parallel_residual", parallel)
    rope = file.rope(partial=True)
    return {
        "hidden_size": file.whole_width,
        "intermediate_size": file.hidden,
        "num_hidden_layers": file.layers,
        "num_attention_heads": file.heads,
        "max_position_embeddings": file.context,
        **rope,
        "rotary_pct": rope["partial_rotary_factor"],  # this configuration's name of it
        "layer_norm_eps": file.keys.real(LAYER_NORM),
        "hidden_act": _GELU,
        "use_parallel_residual": parallel,
    }


def _mpt(file: Described) -> dict[str, Any]:
    _check_four(file)
    slope = file.keys.real("attention.max_alibi_bias")
    if slope != _ALIBI:
        raise file.keys.error(f"{_ALIBI}, the only value of transformers' class,", "attention.max_alibi_bias", slope)
    clip = file.keys.factor("attention.clamp_kqv", 0.0)
    attention = {"alibi": True, "alibi_bias_max": int(_ALIBI), "clip_qkv": clip or None}
    return {
        "d_model": file.whole_width,
        "n_layers": file.layers,
        "n_heads": file.heads,
        "expansion_ratio": 4,
        "max_seq_len": file.context,
        "layer_norm_epsilon": file.keys.real(LAYER_NORM),
        "no_bias": True,
        "attn_config": attention,
    }


def _bloom(file: Described) -> dict[str, Any]:
    _check_four(file)
    return {
        "hidden_size": file.whole_width,
        "n_layer": file.layers,
        "n_head": file.heads,
        "layer_norm_epsilon": file.keys.real(LAYER_NORM),
        "seq_length": file.context,
    }


def _falcon(file: Described) -> dict[str, Any]:
    """Falcon 7B has a single head of keys and values; 40B and 11B have several, and 40B a second norm."""
    second = _second_norm(file)
    return {
        "hidden_size": file.whole_width,
        "num_hidden_layers": file.layers,
        "num_attention_heads": file.heads,
        "num_kv_heads": file.kv_heads,
        "multi_query": file.kv_heads == 1,
        "new_decoder_architecture": second or file.kv_heads > 1,
        "num_ln_in_parallel_attn": 2 if second else 1,
        "parallel_attn": True,
        "bias": False,
        "alibi": False,
        "ffn_hidden_size": file.hidden,
        "max_position_embeddings": file.context,
        **file.rope(),
        "layer_norm_epsilon": file.keys.real(LAYER_NORM),
        "activation": _GELU,
    }


def _second_norm(file: Described) -> bool:
    return file.has("blk.0.attn_norm_2.weight")


ENTRIES: Mapping[str, Architecture] = {
    "gpt2": Architecture(
        "gpt2",
        "GPT2LMHeadModel",
        _gpt2,
        {
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        {
            "attn_norm": "ln_1",
            "ffn_norm": "ln_2",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        block="transformer.h.{}.",
        turned=frozenset({"attn_qkv", "attn_output", "ffn_up", "ffn_down"}),
        keys=frozenset({LAYER_NORM}),
    ),
    "gptneox": Architecture(
        "gpt_neox",
        "GPTNeoXForCausalLM",
        _gptneox,
        {"token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm", "output": "lm_head"},
        {
            **_TWO_NORMS,
            **_FOUR,
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
        },
        block="gpt_neox.layers.{}.",
        orders={"attn_qkv": together},
        keys=frozenset({LAYER_NORM, "use_parallel_residual"}),
    ),
    "mpt": Architecture(
        "mpt",
        "MptForCausalLM",
        _mpt,
        {"token_embd": "transformer.wte", "output_norm": "transformer.norm_f", "output": "lm_head"},
        {
            "attn_norm": "norm_1",
            "ffn_norm": "norm_2",
            "attn_qkv": "attn.Wqkv",
            "attn_output": "attn.out_proj",
            "ffn_up": "ffn.up_proj",
            "ffn_down": "ffn.down_proj",
        },
        block="transformer.blocks.{}.",
        keys=frozenset({LAYER_NORM, "attention.max_alibi_bias", "attention.clamp_kqv"}),
    ),
    "bloom": Architecture(
        "bloom",
        "BloomForCausalLM",
        _bloom,
        {
            "token_embd": "transformer.word_embeddings",
            "token_embd_norm": "transformer.word_embeddings_layernorm",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        {
            **_TWO_NORMS,
            **_FOUR,
            "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense",
        },
        block="transformer.h.{}.",
        orders={"attn_qkv": together},
        keys=frozenset({LAYER_NORM}),
    ),
    "falcon": Architecture(
        "falcon",
        "FalconForCausalLM",
        _falcon,
        {"token_embd": "transformer.word_embeddings", "output_norm": "transformer.ln_f", "output": "lm_head"},
        {
            **_FOUR,
            "attn_norm": "input_layernorm",
            "attn_norm_2": "ln_attn",
            "attn_qkv": "self_attention.query_key_value",
            "attn_output": "self_attention.dense",
        },
        block="transformer.h.{}.",
        choose=lambda file: {"attn_norm": "ln_mlp"} if _second_norm(file) else {},
        orders={"attn_qkv": together},
        keys=frozenset({LAYER_NORM}),
    ),
}
