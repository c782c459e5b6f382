"""Run in .venv-formats: hqq quantizes tiny random checkpoints, and saves them.

make.py OUT CASE …   →   OUT/CASE/ for every case named
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch
from hqq.core.quantize import BaseQuantizeConfig
from hqq.models.hf.base import AutoHQQHFModel
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
LLAMA = SIZES | {"intermediate_size": 96, "num_key_value_heads": 2}
KINDS = {
    "llama": ("llama", LLAMA),
    "llama-tied": ("llama", LLAMA | {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", LLAMA),
}
FULL, HALF = torch.float32, torch.float16
CASES = {
    "4bit-llama": ("llama", FULL, {"nbits": 4, "group_size": 32, "axis": 1}),
    "4bit-axis-0-qwen2": ("qwen2", FULL, {"nbits": 4, "group_size": 64, "axis": 0}),
    "4bit-tied-f16": ("llama-tied", HALF, {"nbits": 4, "group_size": 32, "axis": 1}),
    "8bit-rows": ("llama", FULL, {"nbits": 8, "group_size": None, "axis": 1}),
    "3bit-llama": ("llama", FULL, {"nbits": 3, "group_size": 32, "axis": 1}),
    "3bit-axis-0": ("llama", FULL, {"nbits": 3, "group_size": 64, "axis": 0}),
    "2bit-qwen2": ("qwen2", FULL, {"nbits": 2, "group_size": 16, "axis": 1}),
}


def float_model(kind: str, dtype: torch.dtype) -> torch.nn.Module:
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
    return model.to(dtype)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("cases", nargs="+", choices=sorted(CASES))
    args = parser.parse_args()
    for case in args.cases:
        kind, dtype, settings = CASES[case]
        model = float_model(kind, dtype)
        how = BaseQuantizeConfig(**settings)
        AutoHQQHFModel.quantize_model(model, quant_config=how, compute_dtype=dtype, device="cpu")
        AutoHQQHFModel.save_quantized(model, str(args.out / case))


if __name__ == "__main__":
    main()
