"""Run in .venv-formats: the library itself compresses tiny random checkpoints, or one that is there.

make.py OUT CASE …                →   OUT/CASE/ for every case named
make.py OUT CASE --model FOLDER   →   OUT, the checkpoint of FOLDER in the way of that case
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
KINDS = {
    "llama": SIZES | {"intermediate_size": 96, "num_key_value_heads": 2},
    "opt": SIZES | {"ffn_dim": 96, "word_embed_proj_dim": 64},
}


def group(bits: int, symmetric: bool, size: int | None, targets: tuple[str, ...] = ("Linear",)) -> dict[str, object]:
    """A config group: ``size`` is a group's, −1 for a scale a row, None for one a tensor."""
    strategy = {None: "tensor", -1: "channel"}.get(size, "group")
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy}
    return {"targets": list(targets), "weights": weights | ({"group_size": size} if strategy == "group" else {})}


DYNAMIC = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
HEADLESS = ("lm_head",)
CASES = {
    "w4": ("llama", torch.bfloat16, [group(4, True, 32)], HEADLESS),
    "w4-64": ("llama", torch.bfloat16, [group(4, True, 64)], HEADLESS),
    "w4-asym": ("llama", torch.float16, [group(4, False, 16)], HEADLESS),
    "w4-row": ("opt", torch.float16, [group(4, True, -1)], HEADLESS),
    "w4-row-asym": ("llama", torch.float32, [group(4, False, -1)], HEADLESS),
    "w8-asym": ("llama", torch.float16, [group(8, False, 32)], ()),
    "w8": ("opt", torch.bfloat16, [group(8, True, 16)], HEADLESS),
    "w2": ("llama", torch.float16, [group(2, True, 16)], HEADLESS),
    "w8a8": ("llama", torch.bfloat16, [group(8, True, -1) | {"input_activations": DYNAMIC}], HEADLESS),
    "w8a8-asym": ("opt", torch.float16, [group(8, False, -1) | {"input_activations": DYNAMIC}], HEADLESS),
    "w8a8-tensor": ("llama", torch.float16, [group(8, True, None) | {"input_activations": DYNAMIC}], HEADLESS),
    "mixed": (
        "llama",
        torch.float16,
        [group(4, True, 16, ("re:.*self_attn.*",)), group(8, False, -1, ("re:.*mlp.*",))],
        ("lm_head", "model.layers.0.self_attn.o_proj"),
    ),
}


def random_model(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **KINDS[kind]))
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.add_(torch.randn_like(value) * 0.1) if value.ndim == 1 else None
            value.mul_(4) if value.ndim > 1 and "embed" not in name else None
    return model


def compress(
    model: torch.nn.Module, folder: Path, dtype: torch.dtype, groups: list[dict[str, object]], ignore: tuple[str, ...]
) -> None:
    """Round to nearest between the least and the largest weight of each group, and save."""
    model.to(dtype)
    named = {f"group_{place}": one for place, one in enumerate(groups)}
    config = QuantizationConfig(config_groups=named, ignore=list(ignore), quantization_status="initialized")
    apply_quantization_config(model, config)
    for module in model.modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is None or scheme.weights is None:
            continue
        args, weight = scheme.weights, module.weight.detach()
        ranges = (
            weight if args.group_size is None or args.group_size < 0 else weight.unflatten(1, (-1, args.group_size))
        )
        if args.strategy == "tensor":
            low, high = weight.amin().view(1), weight.amax().view(1)
        else:
            keep = args.strategy != "group"
            low, high = ranges.amin(-1, keepdim=keep), ranges.amax(-1, keepdim=keep)
        scale, zero = calculate_qparams(low, high, args)
        module.weight_scale.data.copy_(scale)
        if hasattr(module, "weight_zero_point"):
            module.weight_zero_point.data.copy_(zero)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("cases", nargs="+", choices=sorted(CASES))
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    for case in args.cases:
        kind, *how = CASES[case]
        if args.model is None:
            compress(random_model(kind), args.out / case, *how)
        else:
            compress(AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32), args.out, *how)


if __name__ == "__main__":
    main()
