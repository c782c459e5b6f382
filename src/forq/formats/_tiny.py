"""The tiny Llama every format's ``example`` quantizes in its own way."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints.write import write_file

GROUP_SIZE = 16
_WIDTH, _HIDDEN, _VOCABULARY, _HEADS, _KV_HEADS = 32, 48, 64, 4, 2
_KV_WIDTH = _WIDTH // _HEADS * _KV_HEADS

CONFIG: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": _VOCABULARY,
    "hidden_size": _WIDTH,
    "intermediate_size": _HIDDEN,
    "num_hidden_layers": 1,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _KV_HEADS,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
_LINEAR = {
    "self_attn.q_proj": (_WIDTH, _WIDTH),
    "self_attn.k_proj": (_KV_WIDTH, _WIDTH),
    "self_attn.v_proj": (_KV_WIDTH, _WIDTH),
    "self_attn.o_proj": (_WIDTH, _WIDTH),
    "mlp.gate_proj": (_HIDDEN, _WIDTH),
    "mlp.up_proj": (_HIDDEN, _WIDTH),
    "mlp.down_proj": (_WIDTH, _HIDDEN),
}
_BLOCK = "model.layers.0"

Quantized = Callable[[str, int, int], Mapping[str, Tensor]]
"""From a module's name, outputs and inputs to the tensors its format stores for it."""


def generator(name: str) -> torch.Generator:
    """Random numbers of a tensor's own."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def model(quantized: Quantized) -> dict[str, Tensor]:
    """The model's tensors, those of its linear layers as ``quantized`` makes them."""
    tensors: dict[str, Tensor] = {}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        drawn = torch.randn(_VOCABULARY, _WIDTH, generator=generator(name))
        tensors[name] = drawn.to(torch.float16)
    norms = (f"{_BLOCK}.input_layernorm", f"{_BLOCK}.post_attention_layernorm", "model.norm")
    for norm in norms:
        drawn = 1 + 0.1 * torch.randn(_WIDTH, generator=generator(norm))
        tensors[f"{norm}.weight"] = drawn.to(torch.float16)
    for name, (rows, columns) in _LINEAR.items():
        tensors |= quantized(f"{_BLOCK}.{name}", rows, columns)
    return tensors


def write(
    folder: Path,
    quantized: Quantized,
    settings: Mapping[str, Any],
    metadata: Callable[[Iterable[str]], Mapping[str, str]] = lambda names: {},
) -> Path:
    """Write the model with its linear layers as ``quantized`` makes them, and the settings in config.json.

    Args:
        metadata: from the names of all tensors to text that stands in the file's header.
    """
    tensors = model(quantized)
    folder.mkdir(parents=True, exist_ok=True)
    plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_file(folder / "model.safetensors", plan, tensors.items(), metadata(tensors))
    (folder / "config.json").write_text(json.dumps({**CONFIG, **settings}, indent=2) + "\n", encoding="utf-8")
    return folder
