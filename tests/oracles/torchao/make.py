"""Run in .venv-formats: torchao quantizes tiny random checkpoints through transformers, and saves them.

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
from torchao.quantization import (
    Int8DynamicActivationInt8WeightConfig,
    Int8DynamicActivationIntxWeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    MappingType,
)
from torchao.quantization.granularity import PerAxis, PerGroup, PerTensor
from transformers import AutoConfig, AutoModelForCausalLM, TorchAoConfig

SIZES = {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
LLAMA = SIZES | {"intermediate_size": 96, "num_key_value_heads": 2}
KINDS = {
    "llama": ("llama", LLAMA),
    "llama-tied": ("llama", LLAMA | {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", LLAMA),
    "opt": ("opt", SIZES | {"ffn_dim": 96, "word_embed_proj_dim": 64}),
}
FULL, BRAIN = torch.float32, torch.bfloat16


def intx(bits: int, group: int = 32, sides: str = "SYMMETRIC") -> IntxWeightOnlyConfig:
    size = PerGroup(group) if group > 0 else PerAxis(0)
    dtype = getattr(torch, f"int{bits}")
    return IntxWeightOnlyConfig(weight_dtype=dtype, granularity=size, mapping_type=MappingType[sides])


CASES = {
    "int8-llama": ("llama", FULL, Int8WeightOnlyConfig()),
    "int8-tied-bf16": ("llama-tied", BRAIN, Int8WeightOnlyConfig()),
    "int8-groups-qwen2": ("qwen2", FULL, Int8WeightOnlyConfig(granularity=PerGroup(32))),
    "int8-matrix-opt": ("opt", FULL, Int8WeightOnlyConfig(granularity=PerTensor())),
    "int8-dynamic": ("llama", FULL, Int8DynamicActivationInt8WeightConfig()),
    "int4-llama": ("llama", FULL, intx(4)),
    "int4-asymmetric-bf16": ("qwen2", BRAIN, intx(4, sides="ASYMMETRIC")),
    "int4-asymmetric-opt": ("opt", FULL, intx(4, sides="ASYMMETRIC")),
    "int3-rows": ("llama", FULL, intx(3, 0, "ASYMMETRIC")),
    "int2-llama": ("llama", FULL, intx(2, 16, "ASYMMETRIC")),
    "int4-dynamic": ("llama", FULL, Int8DynamicActivationIntxWeightConfig(weight_granularity=PerGroup(32))),
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
        with tempfile.TemporaryDirectory() as scratch:
            float_model(Path(scratch), kind, dtype)
            how = TorchAoConfig(settings)
            model = AutoModelForCausalLM.from_pretrained(
                scratch, quantization_config=how, dtype=dtype, device_map="cpu"
            )
            # Small shards for one case: each has a header, and the text of a weight stands in its own.
            model.save_pretrained(args.out / case, max_shard_size="60KB" if case == "int4-llama" else "1GB")


if __name__ == "__main__":
    main()
