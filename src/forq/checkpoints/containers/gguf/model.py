"""Translate a GGUF file to transformers: its configuration, tensor names and row order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints.containers.gguf import rope as _gguf_rope
from forq.checkpoints.containers.gguf import vocabulary as _gguf_vocabulary
from forq.checkpoints.containers.gguf.keys import Keys
from forq.errors import FormatError

_PARTS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

KNOWN = ("llama", "qwen2", "qwen3")
"""Supported values of general.architecture; files of Mistral models have ``llama``."""


def place(name: str) -> str:
    """transformers' name of a tensor. An unknown tensor keeps its name, which no parameter has."""
    inside = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if inside is not None and inside[2] in _PARTS:
        return f"model.layers.{inside[1]}.{_PARTS[inside[2]]}.{inside[3]}"
    head, _, own = name.rpartition(".")
    return f"{_OUTSIDE[head]}.{own}" if head in _OUTSIDE else name


@dataclass(frozen=True, slots=True)
class Interleaved:
    """Row order of heads whose two halves are interleaved: a row of the first half, one of the second, …"""

    heads: int

    def __call__(self, rows: int) -> Tensor:
        return torch.arange(rows).view(self.heads, rows // self.heads // 2, 2).transpose(1, 2).reshape(-1)


def order(path: Path, name: str, shape: tuple[int, ...], config: Mapping[str, Any]) -> Interleaved | None:
    """The order of a tensor's rows in the file; None if it is transformers' order.

    llama.cpp rotates neighbouring rows where transformers rotates halves. GGUF files of Llama models
    store the rows of queries and keys interleaved for this; files of Qwen models do not.

    Raises:
        FormatError: the number of rows does not fit the number of heads.
    """
    inside = re.search(r"\.self_attn\.(q|k)_proj\.\w+$", name)
    if config["model_type"] != "llama" or inside is None:
        return None
    heads = int(config["num_attention_heads" if inside[1] == "q" else "num_key_value_heads"])
    if shape[0] % heads or shape[0] // heads % 2:
        raise FormatError(f"{path}: {name}: expected whole pairs in the rows of {heads} heads, found {shape[0]}")
    return Interleaved(heads)


def config(path: Path, values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The equivalent of config.json.

    Args:
        values: the header's values.
        shapes: the tensors' shapes, by the names in the file.

    Raises:
        FormatError: the architecture is not supported, or a value is missing or out of range.
    """
    kind = values.get("general.architecture")
    if kind not in KNOWN:
        raise FormatError(f"{path}: expected general.architecture among {', '.join(KNOWN)}, found {kind!r:.80}")
    if (parts := values.get("split.count", 0)) not in (0, 1):
        raise FormatError(f"{path}: expected a complete model, found one of {parts!r:.80} files; merge them first")
    keys = Keys(path, kind, values)
    keys.check()
    embedding = shapes.get("token_embd.weight", ())
    if len(embedding) != 2:
        raise FormatError(f"{path}: expected a matrix token_embd.weight, found shape {embedding}")
    width, count = keys.whole("embedding_length"), keys.whole("attention.head_count")
    head = keys.whole("attention.key_length", max(width // count, 1))
    if (value_width := keys.whole("attention.value_length", max(width // count, 1))) != head:
        raise keys.error(f"{head}, as attention.key_length", "attention.value_length", value_width)
    settings: dict[str, Any] = {
        "model_type": kind,
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        "vocab_size": embedding[0],
        "hidden_size": width,
        "intermediate_size": keys.whole("feed_forward_length"),
        "num_hidden_layers": keys.whole("block_count"),
        "num_attention_heads": count,
        "num_key_value_heads": keys.whole("attention.head_count_kv", count),
        "head_dim": head,
        "max_position_embeddings": keys.whole("context_length"),
        "rms_norm_eps": keys.real("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in shapes,
        "dtype": "float16",
        **_gguf_rope.settings(keys, head, keys.whole("context_length")),
    }
    if kind == "llama":
        settings |= {"attention_bias": "blk.0.attn_q.bias" in shapes, "mlp_bias": "blk.0.ffn_up.bias" in shapes}
    if settings["num_hidden_layers"] > len(shapes):
        raise FormatError(
            f"{path}: expected at least {settings['num_hidden_layers']} tensors, one a layer, found {len(shapes)}"
        )
    return settings | _gguf_vocabulary.configured(path, values, rows=embedding[0])
