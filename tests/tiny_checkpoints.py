"""Tiny random checkpoints of every family, written by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

SIZES = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
LLAMA = SIZES | {"intermediate_size": 96, "num_key_value_heads": 2}
OPT = SIZES | {"ffn_dim": 96, "word_embed_proj_dim": 64}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", LLAMA),
    "llama-tied": ("llama", LLAMA | {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "llama-biased": ("llama", LLAMA | {"attention_bias": True, "mlp_bias": True}),
    "opt": ("opt", OPT),
    # As opt-350m: projections around the decoder, norms after the blocks' halves, no last norm.
    "opt-350m": ("opt", OPT | {"word_embed_proj_dim": 32, "do_layer_norm_before": False}),
}


def model(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """A random model of a kind, none of its tensors at its default."""
    family, settings = KINDS[kind]
    torch.manual_seed(0)
    made = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(family, **settings))
    with torch.no_grad():
        for name, value in made.named_parameters():
            if value.ndim == 1:
                value.add_(0.1 * torch.randn_like(value))
            elif "embed" not in name:
                value.mul_(4)
    return made.to(dtype).eval()


def folder(where: Path, kind: str, dtype: torch.dtype = torch.float32, shard: str = "1GB") -> Path:
    """The float checkpoint of a kind, with a file beside it that no one reads."""
    transformers.utils.logging.disable_progress_bar()
    model(kind, dtype).save_pretrained(where, max_shard_size=shard)
    (where / "tokenizer.json").write_text('{"version": "none"}\n')
    return where


def ids(rows: int = 2, length: int = 12) -> torch.Tensor:
    """Token ids that every kind knows."""
    return torch.randint(3, 96, (rows, length), generator=torch.Generator().manual_seed(7))
