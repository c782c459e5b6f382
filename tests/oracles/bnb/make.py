"""Run in .venv-formats: bitsandbytes quantizes tiny random checkpoints through transformers, and saves them.

make.py OUT CASE …   →   OUT/CASE/ for every case named
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

SIZES = {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
LLAMA = SIZES | {"intermediate_size": 128, "num_key_value_heads": 2}
KINDS = {
    "llama": ("llama", LLAMA),
    # 48 inputs, of which a block of 64 takes one row and a third.
    "llama-odd": ("llama", LLAMA | {"hidden_size": 48, "intermediate_size": 80}),
    "llama-tied": ("llama", LLAMA | {"tie_word_embeddings": True}),
    # Wide enough that the absmax of a layer fill more than one block of 256 of their own.
    "llama-wide": ("llama", LLAMA | {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1}),
    "qwen2": ("qwen2", LLAMA),
    "opt": ("opt", SIZES | {"ffn_dim": 128, "word_embed_proj_dim": 64}),
    # Its layers are stored (in, out) in floats, and turned when they are quantized.
    "gpt2": ("gpt2", {"vocab_size": 256, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}),
}

HALF, BRAIN, FULL = torch.float16, torch.bfloat16, torch.float32
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
FP4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}
NESTED = {"bnb_4bit_use_double_quant": True}
INT8 = {"load_in_8bit": True}

CASES = {
    "nf4-llama-f16": ("llama", HALF, NF4),
    "nf4-llama-f32": ("llama", FULL, NF4),
    "nf4-odd-bf16": ("llama-odd", BRAIN, NF4),
    "nf4-tied": ("llama-tied", HALF, NF4),
    "nf4-qwen2": ("qwen2", BRAIN, NF4),
    "nf4-opt": ("opt", HALF, NF4),
    "nf4-gpt2": ("gpt2", HALF, NF4),
    "nf4-mixed": ("llama", HALF, NF4 | {"llm_int8_skip_modules": ["lm_head", "down_proj", "layers.1.self_attn"]}),
    "nf4-nested": ("llama-wide", HALF, NF4 | NESTED),
    "nf4-nested-qwen2": ("qwen2", BRAIN, NF4 | NESTED),
    "fp4-llama": ("llama", HALF, FP4),
    "fp4-nested-opt": ("opt", FULL, FP4 | NESTED),
    "int8-llama": ("llama", HALF, INT8),
    "int8-qwen2": ("qwen2", BRAIN, INT8),
    "int8-opt": ("opt", HALF, INT8),
    "int8-gpt2": ("gpt2", FULL, INT8),
}


def float_model(folder: Path, kind: str, dtype: torch.dtype) -> None:
    """A random model of a kind, every tensor of it away from its default."""
    torch.manual_seed(0)
    family, settings = KINDS[kind]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.1)
            elif "embed" not in name:
                value.mul_(4)
    model.to(dtype).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("cases", nargs="+", choices=sorted(CASES))
    args = parser.parse_args()
    for case in args.cases:
        kind, dtype, settings = CASES[case]
        how = BitsAndBytesConfig(bnb_4bit_compute_dtype=dtype, **settings)
        with tempfile.TemporaryDirectory() as scratch:
            float_model(Path(scratch), kind, dtype)
            model = AutoModelForCausalLM.from_pretrained(
                scratch, quantization_config=how, dtype=dtype, device_map="cpu"
            )
            # Small enough that a nested case comes in several files.
            model.save_pretrained(args.out / case, max_shard_size="100KB" if "nested" in case else "1GB")


if __name__ == "__main__":
    main()
