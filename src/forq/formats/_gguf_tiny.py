"""The tiny GGUF files that hold the format's laws to account: a model of one block, its matrices in random blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints.containers.gguf.kinds import BY_NAME, NUMBERS, Kind
from forq.checkpoints.containers.gguf.write import write_gguf
from forq.formats._tiny import generator

_VOCABULARY, _HEADS, _KV_HEADS, _CONTEXT = 64, 4, 2, 64
_FLOAT16, _FLOAT32 = 1, 0

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "q4_1": {"types": ("Q4_1",)},
    "five": {"types": ("Q5_0", "Q5_1"), "tied": True},
    "q8_0": {"types": ("Q8_0",), "tied": True},
    "qwen2": {"kind": "qwen2"},
    "k": {"types": ("Q4_K", "Q6_K", "Q5_K"), "width": 256, "hidden": 256, "tied": True},
    "small-k": {"types": ("Q2_K", "Q3_K"), "width": 256, "hidden": 256},
}


def write(
    folder: Path,
    *,
    kind: str = "llama",
    types: Sequence[str] = ("Q4_0",),
    width: int = 32,
    hidden: int = 48,
    tied: bool = False,
) -> Path:
    """Write ``folder/tiny.gguf``; matrices take the types in turn, and float16 where rows are no whole blocks."""
    kv = width // _HEADS * _KV_HEADS
    matrices = {
        "token_embd": (_VOCABULARY, width),
        "blk.0.attn_q": (width, width),
        "blk.0.attn_k": (kv, width),
        "blk.0.attn_v": (kv, width),
        "blk.0.attn_output": (width, width),
        "blk.0.ffn_gate": (hidden, width),
        "blk.0.ffn_up": (hidden, width),
        "blk.0.ffn_down": (width, hidden),
    }
    matrices |= {} if tied else {"output": (_VOCABULARY, width)}
    tensors: list[tuple[str, int, tuple[int, ...], Tensor]] = []
    for turn, (name, shape) in enumerate(matrices.items()):
        made = BY_NAME[types[turn % len(types)]]
        if shape[1] % made.size:
            drawn = torch.randn(shape, generator=generator(name)) * 0.1
            tensors.append((f"{name}.weight", _FLOAT16, shape, drawn.half()))
        else:
            tensors.append((f"{name}.weight", NUMBERS[made.name], shape, blocks(made, shape, generator(name))))
        if kind == "qwen2" and name.endswith(("_q", "_k", "_v")):
            drawn = torch.randn(shape[0], generator=generator(f"{name}.bias"))
            tensors.append((f"{name}.bias", _FLOAT32, shape[:1], drawn))
    for norm in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        drawn = 1 + 0.1 * torch.randn(width, generator=generator(norm))
        tensors.append((f"{norm}.weight", _FLOAT32, (width,), drawn))
    values = {
        "general.architecture": kind,
        f"{kind}.block_count": 1,
        f"{kind}.context_length": _CONTEXT,
        f"{kind}.embedding_length": width,
        f"{kind}.feed_forward_length": hidden,
        f"{kind}.attention.head_count": _HEADS,
        f"{kind}.attention.head_count_kv": _KV_HEADS,
        f"{kind}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{kind}.rope.freq_base": 10000.0,
        "tokenizer.ggml.tokens": [f"w{token}" for token in range(_VOCABULARY)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_gguf(folder / "tiny.gguf", values, tensors)
    return folder / "tiny.gguf"


def blocks(kind: Kind, shape: tuple[int, int], draw: torch.Generator) -> Tensor:
    """Random blocks of a type, uint8 (rows, bytes of a row): scales of both signs, one in eight of them zero."""
    count = shape[0] * shape[1] // kind.size
    raw = torch.randint(0, 256, (count, kind.nbytes), dtype=torch.uint8, generator=draw)
    # What a code is multiplied by, all factors taken together, so that weights are of size 0.1.
    span = 0.2 / (1 << kind.bits) / (1 if kind.size == 32 else 32)
    for field in kind.live:
        scales = (torch.randint(-4, 4, (count,), generator=draw) * span * 0.5).half()
        raw[:, field.start : field.start + 2] = scales.view(torch.uint8).view(count, 2)
    return raw.view(shape[0], math.prod(shape) // kind.size * kind.nbytes // shape[0])
