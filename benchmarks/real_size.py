"""Ten steps of qzo on random 4-bit weights of real sizes: peak memory and seconds a step, on a CUDA device.

    make bench-real-size                          # or: python -m benchmarks.real_size [--only sd35-large] [--out FILE]
    python -m benchmarks.real_size --toy          # the same code on small shapes, on any device: it runs, no more

The models are built on the meta device; packed codes, scales and all else are filled at random on the device, so no
file and no download is needed. Beside the measured peak stand what AdamW, MeZO and QLoRA (rank 16) take for weights,
gradients and states alone, computed from the counts. Without a device nothing is measured, and that is what is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from forq import engine
from forq.methods import plan
from forq.models.denoiser import skeleton
from forq.models.skeleton import blocks, put
from forq.oracles.local import Local
from forq.quant.layer import Live, Parts
from forq.quant.leaf import LiveLeaf
from forq.quant.linear import QuantLinear
from forq.quant.normal_float import table
from forq.quant.scratch import Scratch
from forq.quant.weight import QuantWeight
from forq.recipes import recipe
from forq.spaces import Space
from forq.tasks._noised import Noised, flow, sigmas

STEPS = 10
SD35_LARGE = {
    "_class_name": "SD3Transformer2DModel", "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16,
    "num_layers": 38, "attention_head_dim": 64, "num_attention_heads": 38, "joint_attention_dim": 4096,
    "caption_projection_dim": 2432, "pooled_projection_dim": 2048, "pos_embed_max_size": 192, "qk_norm": "rms_norm",
}  # fmt: skip
LLAMA_2_13B = {
    "vocab_size": 32000, "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
    "num_attention_heads": 40, "num_key_value_heads": 40, "max_position_embeddings": 4096,
}  # fmt: skip


def filled(model: nn.Module, group_size: int, levels: bool, device: torch.device) -> tuple[list[LiveLeaf], int, int]:
    """Random weights for a model on the meta device, 4-bit in its blocks: the scales, how many weights, other bytes."""
    inside, scratch, leaves, weights, rest = set(blocks(model)), Scratch(), [], 0, 0
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name in inside:
            rows, columns = module.out_features, module.in_features
            codes = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8, device=device)
            groups = columns // group_size
            zeros = torch.full((1,), 0 if levels else 8, dtype=torch.int8, device=device).expand(groups, rows)
            still = QuantWeight(codes, zeros, 4, group_size, levels=table("nf4").levels.to(device) if levels else None)
            scales = torch.full((groups, rows), (1.0 if levels else 0.2) / columns**0.5, device=device)
            bias = None if module.bias is None else torch.zeros(rows, device=device)
            spec = Live(f"{name}.scales", torch.float16)
            layer = QuantLinear(Parts(still, (scales,), bias), (spec,), scratch)
            put(model, name, layer)
            leaves.append(LiveLeaf(layer, spec))
            weights += rows * columns
            continue
        for own, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if tensor.is_meta:
                made = 0.02 * torch.randn(tensor.shape, dtype=tensor.dtype, device=device)
                setattr(module, own, nn.Parameter(made, requires_grad=False) if own in module._parameters else made)
                rest += made.nbytes
    return leaves, weights, rest


def sd35(device: torch.device, toy: bool) -> tuple[nn.Module, Callable[[], float], int]:
    small = {"num_layers": 2, "num_attention_heads": 2, "caption_projection_dim": 128, "joint_attention_dim": 64}
    config = SD35_LARGE | (small | {"pooled_projection_dim": 32, "pos_embed_max_size": 32} if toy else {})
    model: Any = skeleton(config, torch.bfloat16).eval()
    rows, side, tokens = (2, 8, 8) if toy else (16, 64, 333)

    def loss() -> float:
        g = torch.Generator().manual_seed(0)
        x0, noise = (torch.randn(rows, 16, side, side, generator=g) for _ in range(2))
        width = int(config["joint_attention_dim"])  # type: ignore[call-overload]
        texts = torch.randn(rows, tokens, width, generator=g)
        pooled = torch.randn(rows, int(config["pooled_projection_dim"]), generator=g)  # type: ignore[call-overload]
        batch = Noised(x0, noise, sigmas((torch.arange(rows).double() + 0.5) / rows, 3.0), texts, pooled, rows)

        def velocity(x: Any, texts: Any, pooled: Any, sigma: Any) -> Any:
            return model(x, texts, pooled, 1000 * sigma, return_dict=False)[0]

        with torch.inference_mode():
            return float(flow(velocity, batch, device, torch.bfloat16).mean())

    return model, loss, 64


def llama(device: torch.device, toy: bool) -> tuple[nn.Module, Callable[[], float], int]:
    from transformers import AutoModelForCausalLM, LlamaConfig

    small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(**(LLAMA_2_13B | (small | {"num_key_value_heads": 2, "vocab_size": 256} if toy else {})))
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float16).eval()
    rows, length = (2, 16) if toy else (16, 256)

    def loss() -> float:
        ids = torch.randint(0, config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0)).to(device)
        with torch.inference_mode():
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            total = 0.0
            for row, target in zip(hidden, ids[:, 1:], strict=True):  # a row's logits at a time
                total += float(nn.functional.cross_entropy(model.lm_head(row).float(), target))
            return total / rows

    return model, loss, 128


SHAPES = {"sd35-large": (sd35, True), "llama-2-13b": (llama, False)}


def measure(name: str, device: torch.device, toy: bool) -> dict[str, Any]:
    """Fill a shape, calibrate, take ten steps."""
    make, levels = SHAPES[name]
    model, loss, group = make(device, toy)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    leaves, weights, rest = filled(model, group, levels, device)
    if name.startswith("llama"):
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        model.model.rotary_emb = LlamaRotaryEmbedding(model.config).to(device)  # type: ignore[union-attr]
    method = recipe("qzo").settings
    space = Space(leaves, method.domain)
    oracle = Local(space, lambda step: None, lambda _: loss())
    times, began = [], time.perf_counter()
    for line in engine.run(space, oracle, plan(method, seed=0, steps=STEPS, room=space.room), steps=STEPS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if line.kind == "train":
            times.append(time.perf_counter() - began)
        began = time.perf_counter()
    scales = sum(leaf.read().numel() for leaf in leaves)
    total = weights + rest // 2
    return {
        "shape": name,
        "toy": toy,
        "parameters": total,
        "scales": scales,
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "seconds_a_step": statistics.median(times),
        "codes_and_scales_bytes": weights // 2 + 8 * scales,
        "adamw_bytes": 16 * total,
        "mezo_bytes": 2 * total,
        "qlora_bytes": weights // 2 + 4 * scales + rest + 16 * sum(16 * sum(_sizes(leaf)) for leaf in leaves),
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": {package: version(package) for package in ("forq", "torch", "diffusers", "transformers")},
    }


def _sizes(leaf: LiveLeaf) -> tuple[int, int]:
    return leaf.layer.in_features, leaf.layer.out_features


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--only", choices=tuple(SHAPES))
    args.add_argument("--out", type=Path)
    args.add_argument("--toy", action="store_true")
    told = args.parse_args()
    if not told.toy and not torch.cuda.is_available():
        print("no CUDA device here: peak and seconds at real size stay unmeasured")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = [measure(name, device, told.toy) for name in SHAPES if told.only in (None, name)]
    text = json.dumps(found, indent=1)
    print(text)
    if told.out is not None and not told.toy:
        told.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
