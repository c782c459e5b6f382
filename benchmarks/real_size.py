"""Steps of qzo on random 4-bit weights of real sizes: peak memory and seconds a step, on a CUDA device.

    make bench-real-size                          # or: python -m benchmarks.real_size [--only sd35-large] [--steps 5]
    python -m benchmarks.real_size --toy          # the same code on small shapes, on any device: it runs, no more

The models are built on the meta device; packed codes, scales and all else are filled at random on the device, so no
file and no download is needed. Beside the measured peak stand what AdamW, MeZO and QLoRA (rank 16) take for weights,
gradients and states alone, computed from the counts; and, interleaved in the same process, a plain forward by the
Triton kernel, by the reference, and of the same network in 16-bit floats. Without a device nothing is measured, and
that is what is printed.
"""

from __future__ import annotations

import argparse
import gc
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

from forq.coordinates.space import Space
from forq.devices import triton_for
from forq.layers.layer import Live, Parts
from forq.layers.leaves import LiveLeaf
from forq.layers.linear import QuantLinear
from forq.layers.normal_float import table
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight
from forq.models.diffusion.denoiser import skeleton
from forq.models.skeleton import blocks, put
from forq.recipes import recipe
from forq.recipes.plan import plan
from forq.runs import engine
from forq.runs.oracles.local import Local
from forq.scalars.moves import Move, Term
from forq.tasks.images.noised import Noised, flow, sigmas

PACKAGES = ("forq", "torch", "diffusers", "transformers", "triton")
ROWS = 16
ROUNDS = 5
SD35_LARGE = {
    "_class_name": "SD3Transformer2DModel", "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16,
    "num_layers": 38, "attention_head_dim": 64, "num_attention_heads": 38, "joint_attention_dim": 4096,
    "caption_projection_dim": 2432, "pooled_projection_dim": 2048, "pos_embed_max_size": 192, "qk_norm": "rms_norm",
}  # fmt: skip
LLAMA_2_7B = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
}  # fmt: skip
LLAMA_2_13B = {
    "vocab_size": 32000, "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
    "num_attention_heads": 40, "num_key_value_heads": 40, "max_position_embeddings": 4096,
}  # fmt: skip


Loss = Callable[[int], float]
"""Of so many rows."""


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
            layer.unpacked = "triton" if triton_for(device.type) else "reference"
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


def sd35(device: torch.device, toy: bool, shape: dict[str, Any]) -> tuple[nn.Module, Loss, int]:
    small = {"num_layers": 2, "num_attention_heads": 2, "caption_projection_dim": 128, "joint_attention_dim": 64}
    config = shape | (small | {"pooled_projection_dim": 32, "pos_embed_max_size": 32} if toy else {})
    model: Any = skeleton(config, torch.bfloat16).eval()
    side, tokens = (8, 8) if toy else (64, 333)

    def loss(rows: int) -> float:
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


def llama(device: torch.device, toy: bool, shape: dict[str, Any]) -> tuple[nn.Module, Loss, int]:
    from transformers import AutoModelForCausalLM, LlamaConfig

    small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(**(shape | (small | {"num_key_value_heads": 2, "vocab_size": 256} if toy else {})))
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float16).eval()
    length = 16 if toy else 256

    def loss(rows: int) -> float:
        ids = torch.randint(0, config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0)).to(device)
        with torch.inference_mode():
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            total = 0.0
            for row, target in zip(hidden, ids[:, 1:], strict=True):  # a row's logits at a time
                total += float(nn.functional.cross_entropy(model.lm_head(row).float(), target))
            return total / rows

    return model, loss, 128


SHAPES: dict[str, tuple[Any, dict[str, Any], bool]] = {
    "sd35-large": (sd35, SD35_LARGE, True),
    "llama-2-7b": (llama, LLAMA_2_7B, False),
    "llama-2-13b": (llama, LLAMA_2_13B, False),
}


class Clock:
    """Seconds and peak bytes of what a device did between two looks at it."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._cuda = device, device.type == "cuda"
        self.start()

    def start(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        self._began = time.perf_counter()

    def seconds(self) -> float:
        if self._cuda:
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - self._began

    def peak(self) -> int | None:
        return torch.cuda.max_memory_allocated(self._device) if self._cuda else None


def measure(name: str, device: torch.device, toy: bool, steps: int) -> dict[str, Any]:
    """Fill a shape, calibrate, take steps; then plain forwards."""
    make, shape, levels = SHAPES[name]
    model, loss, group = make(device, toy, shape)
    rows = 2 if toy else ROWS
    leaves, weights, rest = filled(model, group, levels, device)
    if name.startswith("llama"):
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        model.model.rotary_emb = LlamaRotaryEmbedding(model.config).to(device)
    method = recipe("qzo-slopes").settings
    space = Space(leaves, method.domain)
    oracle = Local(space, lambda step: None, lambda _: loss(rows))
    clock, times, forwards_of_a_step = Clock(device), [], 0
    for line in engine.run(space, oracle, plan(method, seed=0, steps=steps, half_range=space.half_range), steps=steps):
        taken, peak = clock.seconds(), clock.peak()
        if line.kind == "train":
            times.append(taken)
            forwards_of_a_step = line.forwards
        clock.start()
    clock.start()
    with space.displaced(Move((Term(1, 1e-3),))):
        loss(1)
    alone = clock.peak()
    scales = sum(leaf.tensor.numel() for leaf in leaves)
    total = weights + rest // 2
    return {
        "shape": name,
        "toy": toy,
        "parameters": total,
        "scales": scales,
        "rows": rows,
        "forwards_a_step": forwards_of_a_step,
        "peak_bytes": peak,
        "peak_bytes_of_one_row": alone,
        "seconds_a_step": statistics.median(times),
        "seconds_a_forward": forwards(model, lambda: loss(rows), clock),
        "codes_and_scales_bytes": weights // 2 + 8 * scales,
        "adamw_bytes": 16 * total,
        "mezo_bytes": 2 * total,
        "qlora_bytes": weights // 2 + 4 * scales + rest + 16 * sum(16 * sum(_sizes(leaf)) for leaf in leaves),
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": {package: version(package) for package in PACKAGES[: None if triton_for(device.type) else -1]},
    }


def forwards(model: nn.Module, loss: Callable[[], float], clock: Clock) -> dict[str, float]:
    """Median seconds of a forward: by each kernel there is, and of the same network in floats of its own dtype."""
    places = {module: name for name, module in model.named_modules() if isinstance(module, QuantLinear)}
    kind = next(model.parameters()).dtype
    floats = {}
    for layer, name in places.items():
        plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta", dtype=kind)
        floats[name] = plain.to_empty(device=layer.scales.device).requires_grad_(False)
        nn.init.normal_(floats[name].weight, std=layer.in_features**-0.5)
    fused = next(iter(places)).unpacked == "triton"

    def by(way: str) -> None:
        for layer, name in places.items():
            layer.unpacked = "triton" if way == "triton" else "reference"
            put(model, name, floats[name] if way == "floats" else layer)

    found: dict[str, list[float]] = {way: [] for way in ("triton", "reference", "floats") if fused or way != "triton"}
    for turn in range(ROUNDS + 1):
        for way, seconds in found.items():
            by(way)
            clock.start()
            loss()
            if turn:  # the first warms up
                seconds.append(clock.seconds())
    return {way: statistics.median(seconds) for way, seconds in found.items()}


def _sizes(leaf: LiveLeaf) -> tuple[int, int]:
    return leaf.layer.in_features, leaf.layer.out_features


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--only", choices=tuple(SHAPES))
    args.add_argument("--steps", type=int, default=10)
    args.add_argument("--out", type=Path)
    args.add_argument("--toy", action="store_true")
    told = args.parse_args()
    if not told.toy and not torch.cuda.is_available():
        print("no CUDA device here: peak and seconds at real size stay unmeasured")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    for name in SHAPES:
        if told.only in (None, name):
            found.append(measure(name, device, told.toy, told.steps))
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
            text = json.dumps(found, indent=1)
            if told.out is not None and not told.toy:
                told.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
