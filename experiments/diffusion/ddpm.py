"""A noise predictor of MNIST at 4 bits: how much of the loss that rounding cost is won back forward-only.

    python experiments/diffusion/ddpm.py run --data $FORQ_DATA [--seeds 0 1 2]   # results/diffusion_ddpm.jsonl
    python experiments/diffusion/ddpm.py table

The network of the data folder (ddpm-mnist, 291,217 parameters) predicts the noise in digits of −0.5 … 0.5 (epsilon
prediction). Its three inner convolutions and its time embedding, 140,000 weights, are rounded to nearest at 4 bits, one
scale for 98 inputs of a convolution (two planes of its 7×7 kernels) and for 32 of a linear layer; the scales move by
`qzo` as it is, on batches of 16 training digits with stratified times. The last point is scored, not the best, on 200
test digits with fixed noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from digits import test_digits, train_digits
from torch import Tensor, nn
from torch.nn import functional

from forq.coordinates.space import Space
from forq.layers.layer import Live, Parts
from forq.layers.leaves import LiveLeaf
from forq.layers.linear import QuantLinear
from forq.layers.round_to_nearest import round_to_nearest
from forq.layers.scratch import Scratch
from forq.noise.bits import Bits, leaf_id
from forq.recipes import recipe
from forq.recipes.plan import plan
from forq.runs import engine
from forq.runs.oracles.local import Local
from forq.scalars.moves import direction_seed
from forq.tasks.images.noised import epsilon, normal, stratified

TARGET = Path(__file__).parents[2] / "results" / "diffusion_ddpm.jsonl"
ROWS, SCORED, BITS = 16, 200, 4
INNER = ("blocks.1.net.0", "blocks.2.net.0", "blocks.3.net.0")
TIME = ("time_embed.0", "time_embed.2", "time_embed.4", "time_embed.6")


class Predictor(nn.Module):
    """(x_t, t) → noise; layers that are quantized answer for their matrices, the others come from the file."""

    def __init__(self, file: Path, quantized: bool) -> None:
        super().__init__()
        state: dict[str, Tensor] = torch.load(file, weights_only=True, map_location="cpu")
        self.alpha_bar = state["alpha_t"].float()
        self.state = {name.removeprefix("gt."): tensor.float() for name, tensor in state.items()}
        self.layers: dict[str, QuantLinear] = {}
        scratch = Scratch()
        for name in (*INNER, *TIME) if quantized else ():
            matrix = self.state[f"{name}.weight"].flatten(1)
            weight, scales = round_to_nearest(matrix, 98 if name in INNER else 32, bits=BITS, sym=True)
            live = (Live(f"{name}.scales", torch.float16),)
            self.layers[name] = QuantLinear(Parts(weight, (scales.float(),), None), live, scratch)

    def weight(self, name: str) -> Tensor:
        stored = self.state[f"{name}.weight"]
        return self.layers[name].dequantise().view(stored.shape) if name in self.layers else stored

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        s = self.state
        angle = t[:, None].float() / 1000 * s["frequencies"]
        # cos − 1, as this network was trained: with it the float loss is the 0.036 its description gives.
        time = torch.cat([angle.sin(), angle.cos() - 1], dim=1)
        for name in TIME:
            time = functional.linear(time, self.weight(name), s[f"{name}.bias"])
            time = functional.gelu(time) if name != TIME[-1] else time
        for place, name in enumerate(("blocks.0.net.0", *INNER)):
            x = functional.conv2d(x, self.weight(name), s[f"{name}.bias"], padding=3)
            norm = name[:-1] + "1"
            x = functional.gelu(functional.layer_norm(x, x.shape[1:], s[f"{norm}.weight"], s[f"{norm}.bias"]))
            if place == 0:
                x = x + time[:, :, None, None]
        return functional.conv2d(x, s["blocks.4.weight"], s["blocks.4.bias"], padding=1)


def loss(model: Predictor, digits: Tensor, bits: Bits) -> Tensor:
    x0 = digits[:, None] - 0.5
    t = (stratified(bits.on(1), len(x0)) * 1000).long() + 1
    return epsilon(model, x0, normal(bits, tuple(x0.shape)), t, model.alpha_bar)


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("action", choices=("run", "table"))
    args.add_argument("--data", type=Path)
    args.add_argument("--steps", type=int, default=30)
    args.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    told = args.parse_args()
    if told.action == "table":
        print(table())
        return
    file = told.data / "ddpm-mnist" / "ddpm_mnist.pth"
    train, test = train_digits(told.data, [0])[0], test_digits(told.data)[0][:SCORED]
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))

    def score(model: Predictor) -> float:
        with torch.inference_mode():
            return float(loss(model, test, Bits(direction_seed(7, 0), leaf_id("scored"))).mean())

    floats, rounded = score(Predictor(file, False)), score(Predictor(file, True))
    print(f"float {floats:.5f}, {BITS} bits {rounded:.5f}", flush=True)
    for seed in told.seeds:
        model, method, began = Predictor(file, True), recipe("qzo-slopes").settings, time.perf_counter()
        space = Space([LiveLeaf(layer, spec) for layer in model.layers.values() for spec in layer.live], method.domain)
        noise = leaf_id(f"training noise {seed}")

        def batch(step: int, seed: int = seed, noise: int = noise) -> tuple[Tensor, Bits]:
            places = (torch.arange(ROWS) + ROWS * step + 1000 * seed) % len(order)
            return train[order[places]], Bits(direction_seed(seed, step), noise)

        def asked(given: tuple[Tensor, Bits], model: Predictor = model) -> float:
            with torch.inference_mode():
                return float(loss(model, *given).mean())

        forwards = 0
        made = plan(method, seed=seed, steps=told.steps, half_range=space.half_range)
        for line in engine.run(space, Local(space, batch, asked), made, steps=told.steps):
            forwards += line.forwards
        row: dict[str, Any] = {
            "seed": seed,
            "steps": told.steps,
            "forwards": forwards,
            "float": floats,
            "before": rounded,
            "after": score(model),
            "seconds": round(time.perf_counter() - began, 1),
        }
        with TARGET.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        print(row, flush=True)


def table() -> str:
    rows = [json.loads(line) for line in TARGET.read_text(encoding="utf-8").splitlines()]
    after = [row["after"] for row in rows]
    back = [(row["before"] - row["after"]) / (row["before"] - row["float"]) for row in rows]
    spread = statistics.stdev if len(rows) > 1 else lambda _: float("nan")
    return (
        "| float | 4 bits | tuned | won back | seeds | steps |\n|---|---|---|---|---|---|\n"
        f"| {rows[0]['float']:.5f} | {rows[0]['before']:.5f} | {statistics.fmean(after):.5f} ± {spread(after):.5f} | "
        f"{statistics.fmean(back):.0%} ± {spread(back):.0%} | {len(rows)} | {rows[0]['steps']} |"
    )


if __name__ == "__main__":
    main()
