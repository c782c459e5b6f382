"""Tiny random models as GGUF files, written by gguf-py with llama.cpp's names of tensors and keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tests.fixtures.gguf_architectures import add
from tests.oracles.gguf.blocks import Q, packed

Kind = gguf.GGUFValueType
VOCABULARY, HEADS, KV_HEADS = 320, 4, 2


def write(
    path: Path,
    kind: str = "llama",
    types: Sequence[Q] = (Q.F32,),
    *,
    layers: int = 2,
    tied: bool = False,
    biases: Collection[str] = (),
    width: int = 256,
    head: int | None = None,
    factors: np.ndarray | None = None,
    values: Mapping[str, Any] | None = None,
    without: Collection[str] = (),
) -> Path:
    """Write one file; its matrices take the types in turn.

    Args:
        kind: the architecture; ``qwen2`` has biases of queries, keys and values, ``qwen3`` norms of queries and keys.
        tied: there is no output matrix.
        layers: how many blocks.
        biases: other tensors of each layer that have one.
        width: of the model; the feed-forward layer has twice as many features.
        head: width of a head.
        factors: rope_freqs.weight.
        values: more keys, without the architecture in front.
        without: keys left out.
    """
    draw, hidden = np.random.default_rng(0), 2 * width
    head = width // HEADS if head is None else head
    said = {
        "block_count": layers,
        "context_length": 64,
        "embedding_length": width,
        "feed_forward_length": hidden,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
        "vocab_size": VOCABULARY,
        **(values or {}),
    }
    writer = gguf.GGUFWriter(path, kind)
    for key, value in said.items():
        if key not in without:
            add(writer, f"{kind}.{key}", value)
    writer.add_tokenizer_model("none")
    matrices = {"token_embd": (VOCABULARY, width)} | ({} if tied else {"output": (VOCABULARY, width)})
    parts = {
        "attn_q": (HEADS * head, width),
        "attn_k": (KV_HEADS * head, width),
        "attn_v": (KV_HEADS * head, width),
        "attn_output": (width, HEADS * head),
        "ffn_gate": (hidden, width),
        "ffn_up": (hidden, width),
        "ffn_down": (width, hidden),
    }
    norms = {"attn_norm": width, "ffn_norm": width} | (
        {"attn_q_norm": head, "attn_k_norm": head} if kind == "qwen3" else {}
    )
    biased = {*biases, *(("attn_q", "attn_k", "attn_v") if kind == "qwen2" else ())}
    for layer in range(layers):
        matrices |= {f"blk.{layer}.{part}": shape for part, shape in parts.items()}
        for norm, size in norms.items():
            writer.add_tensor(f"blk.{layer}.{norm}.weight", 1 + _normal(draw, (size,), 0.1))
        for part in sorted(biased):
            writer.add_tensor(f"blk.{layer}.{part}.bias", _normal(draw, parts[part][:1], 0.3))
    writer.add_tensor("output_norm.weight", 1 + _normal(draw, (width,), 0.1))
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    for turn, (name, shape) in enumerate(matrices.items()):
        made = types[turn % len(types)]
        weight = _normal(draw, shape, 1.0 if name == "token_embd" else 0.1)
        writer.add_tensor(f"{name}.weight", packed(made, weight, draw), raw_dtype=made)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _normal(draw: np.random.Generator, shape: tuple[int, ...], size: float) -> np.ndarray:
    return (draw.standard_normal(shape) * size).astype(np.float32)
