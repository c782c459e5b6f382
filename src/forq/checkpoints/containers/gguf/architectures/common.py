"""What many entries of the table share: names of Llama's tensors, sizes, sliding windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forq.checkpoints.containers.gguf.architectures.architecture import Described

OUTSIDE: Mapping[str, str] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
TIED: Mapping[str, str] = {name: place for name, place in OUTSIDE.items() if name != "output"}
"""Names of an architecture whose files never store a head: llama.cpp reads the embedding again."""

ATTENTION: Mapping[str, str] = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
GATED: Mapping[str, str] = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
NORMS: Mapping[str, str] = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
QK_NORMS: Mapping[str, str] = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
SANDWICH: Mapping[str, str] = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
"""Gemma's norms: in front of and behind both halves of a block."""

LAYER_NORM = "attention.layer_norm_epsilon"


def sizes(file: Described) -> dict[str, Any]:
    """The sizes of a decoder under the names of most configurations."""
    return {
        "hidden_size": file.width,
        "intermediate_size": file.hidden,
        "num_hidden_layers": file.layers,
        "num_attention_heads": file.heads,
        "num_key_value_heads": file.kv_heads,
        "head_dim": file.head,
        "max_position_embeddings": file.context,
    }


def rms(file: Described) -> dict[str, Any]:
    """The epsilon of root-mean-square norms."""
    return {"rms_norm_eps": file.keys.real("attention.layer_norm_rms_epsilon")}


def windows(file: Described, size: int, period: int) -> dict[str, Any]:
    """Sliding windows in all blocks but every ``period``-th.

    Raises:
        FormatError: the file lists another pattern (llama.cpp reads a number, and no list), or heads of
            another width in the blocks with a window.
    """
    for key in _WIDTHS:
        if (width := file.keys.whole(key, file.head)) != file.head:
            raise file.keys.error(f"{file.head}, as in the other blocks,", key, width)
    name = "attention.sliding_window_pattern"
    stated = file.keys.get(name, period)
    pattern = [(layer + 1) % period != 0 for layer in range(file.layers)]
    if isinstance(stated, list):
        if stated != pattern:
            raise file.keys.error(f"a full block after every {period - 1} with a window", name, stated)
    else:
        period = file.keys.whole(name, period)
        pattern = [(layer + 1) % period != 0 for layer in range(file.layers)]
    kinds = {True: "sliding_attention", False: "full_attention"}
    return {"sliding_window": size, "layer_types": [kinds[slides] for slides in pattern]}


_WIDTHS = ("attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa")
WINDOWS = frozenset({"attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa", *_WIDTHS})
"""The keys of sliding windows."""
