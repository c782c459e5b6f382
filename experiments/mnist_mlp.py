"""Whole cells on a network that is no transformer: an MLP 784-256-128-10 on MNIST, tuned forward-only.

    python experiments/mnist_mlp.py run --data $FORQ_DATA      # results/mnist_mlp.jsonl, resumable; about 20 minutes
    python experiments/mnist_mlp.py table                      # as Markdown

The network is trained here by back-propagation (one seed), rounded to nearest at 8, 4 and 2 bits with one scale a row,
and tuned with forq's own engine through `Space`, `plan` and `engine.run`, as any model of one's own can be. `clean`
tunes on the digits it was trained on, as the published numbers do; `turned` on digits turned by 30 degrees. Every run
spends the same forwards, 2,000, on batches of 128 rows; recipes are untouched but for what a row's name says; the last
point is scored, not the best, on the 10,000 test digits. One bound of the calibration (how far integers may walk) was
set after looking at seed 0 of `turned`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import re
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, relu

from forq.coordinates.leaf import Leaf
from forq.coordinates.space import Space
from forq.layers.layer import FiledCodes, Live, Parts
from forq.layers.leaves import CodeLeaf, LiveLeaf, TensorLeaf
from forq.layers.linear import QuantLinear
from forq.layers.round_to_nearest import round_to_nearest
from forq.layers.scratch import Scratch
from forq.noise.bits import Bits
from forq.recipes import recipe
from forq.recipes.plan import plan
from forq.recipes.settings import Settings
from forq.runs import engine
from forq.runs.oracles.local import Local

TARGET = Path(__file__).parents[1] / "results" / "mnist_mlp.jsonl"
SIZES = (784, 256, 128, 10)
FORWARDS, ROWS, SEEDS, DEGREES = 2000, 128, range(3), 30.0

# Method: recipe, what moves, settings by hand. `float` tunes the network before it was quantized.
METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "zoqo-paper": ("zoqo-paper", "codes", {}),
    "zoqo-paper, audited": ("zoqo-paper", "codes", {"estimator.name": "three_point", "rule.audit": 50}),
    "zoqo": ("zoqo", "codes", {}),
    "zoqo, audited": ("zoqo", "codes", {"estimator.name": "three_point", "rule.audit": 50}),
    "zoqo, edge skipped": ("zoqo", "codes", {"rule.edge": "skip"}),
    "quzo": ("quzo", "codes", {}),
    "qes": ("qes", "codes", {}),
    "qes, no feedback": ("qes", "codes", {"rule.feedback": 0}),
    "zo-signsgd, scales": ("zo-signsgd", "scales", {}),
    "qzo, scales": ("qzo-slopes", "scales", {}),
    "qzo, float weights": ("qzo-slopes", "float", {}),
    "qzo, float weights, newton 0.1": ("qzo-slopes", "float", {"rule.newton": 0.1}),
}
COARSE = ("zoqo-paper", "zoqo")
CLEAN = ("zoqo-paper", "zoqo-paper, audited", "zoqo", "zoqo, audited", "qes", "qzo, float weights")


class MLP(nn.Module):
    """Three linear layers of any kind, with ReLU between."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        return self.layers[-1](x)


def digits(data: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test digits in 0 … 1, rows of 784, and their labels."""
    from PIL import Image

    folder = data / "mnist"
    labels = json.loads(re.search(r"\[.*?\]", (folder / "mnist_labels.js").read_text(), re.S)[0])
    rows = [np.asarray(Image.open(folder / f"mnist_batch_{k}.png").convert("L")).reshape(-1, 784) for k in range(20)]
    x = np.concatenate(rows)
    test = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    y = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    floats = [torch.from_numpy(part.astype(np.float32) / 255) for part in (x, test.reshape(-1, 784))]
    return floats[0], torch.tensor(labels[: len(x)]), floats[1], torch.from_numpy(y.astype(np.int64))


def turned(x: Tensor) -> Tensor:
    angle = math.radians(DEGREES)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])
    grid = affine_grid(turn.expand(len(x), 2, 3), [len(x), 1, 28, 28], align_corners=False)
    return grid_sample(x.view(-1, 1, 28, 28), grid, align_corners=False).view(-1, 784)


def trained(x: Tensor, y: Tensor) -> MLP:
    """Back-propagation, one epoch of AdamW."""
    torch.manual_seed(0)
    model = MLP([nn.Linear(a, b) for a, b in pairwise(SIZES)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for some in torch.randperm(len(x)).split(64):
        optimizer.zero_grad()
        cross_entropy(model(x[some]), y[some]).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def quantized(model: MLP, bits: int) -> MLP:
    """The same network with every matrix at ``bits`` bits, a scale a row."""
    scratch, layers = Scratch(), []
    for k, layer in enumerate(model.layers):
        weight, scales = round_to_nearest(layer.weight, layer.in_features, bits=bits)
        told = (Live(f"{k}.scales", torch.float16, out_axis=1),)
        made = QuantLinear(Parts(weight, (scales,), layer.bias.clone()), told, scratch)
        made.filed_codes = FiledCodes(f"{k}.codes", torch.uint8, tuple(layer.weight.shape), bits, torch.clone)
        layers.append(made)
    return MLP(layers).eval()


def leaves(model: MLP, what: str) -> list[Leaf]:
    if what == "float":
        return [
            TensorLeaf(f"{k}.weight", "dense", torch.float32, layer.weight.data) for k, layer in enumerate(model.layers)
        ]
    if what == "scales":
        return [LiveLeaf(layer, layer.specs[0]) for layer in model.layers]
    found = [CodeLeaf(layer, layer.filed_codes) for layer in model.layers]
    for leaf in found:
        leaf.open()
    return list(found)


def settings(name: str) -> Settings:
    chosen, what, sets = METHODS[name]
    tree = recipe(chosen).settings.model_dump() | {"move": {"float": "dense"}.get(what, what)}
    for key, value in sets.items():
        head, _, rest = key.partition(".")
        tree[head][rest] = value
    return Settings.model_validate(tree)


def score(model: MLP, x: Tensor, y: Tensor) -> dict[str, float]:
    with torch.inference_mode():
        scores = model(x)
    return {"loss": cross_entropy(scores, y).item(), "accuracy": 100 * (scores.argmax(1) == y).float().mean().item()}


def run(job: dict[str, Any], model: MLP, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict[str, Any]:
    if job["bits"] < 32:
        model = quantized(model, job["bits"])
    else:
        model = MLP([nn.Linear(a, b) for a, b in pairwise(SIZES)]).eval().requires_grad_(False)
        model.load_state_dict(float_state)
    chosen = settings(job["method"])
    space = Space(leaves(model, METHODS[job["method"]][1]), chosen.domain)
    before = score(model, *test)

    def batch(step: int) -> Tensor:
        drawn = Bits(job["seed"] << 64 | step, 1).uniform32(0, ROWS)
        return torch.from_numpy((drawn % len(train[0])).astype(np.int64))

    def loss(rows: Tensor) -> float:
        with torch.inference_mode():
            return cross_entropy(model(train[0][rows]), train[1][rows]).item()

    probes = {"two_point": 2, "three_point": 2, "one_sided": 1}[chosen.estimator.name] * chosen.estimator.directions
    per_step = probes + (chosen.estimator.name != "two_point")
    steps = int(0.95 * FORWARDS) // per_step
    began, spent, changed, cut, lost, ended = time.perf_counter(), 0, 0, 0, 0, None
    method = plan(chosen, seed=job["seed"], steps=steps, half_range=space.half_range)
    for line in engine.run(space, Local(space, batch, loss), method, steps=steps):
        spent += line.forwards
        changed, cut, lost = changed + line.moved.changed, cut + line.moved.cut, lost + line.moved.rounded_away
        ended = line.notes.get(engine.CERTIFICATE, ended)
    return job | {
        "forwards": spent,
        "before": before,
        "after": score(model, *test),
        "changed": changed,
        "cut": cut,
        "lost": lost,
        "certificate_after": None if ended is None else spent,
        "seconds": round(time.perf_counter() - began, 1),
    }


float_state: dict[str, Tensor] = {}


def jobs() -> Iterator[dict[str, Any]]:
    for seed in SEEDS:
        for data in ("turned", "clean"):
            for name in METHODS if data == "turned" else CLEAN:
                widths = (4, 8, *((2,) if name in COARSE else ())) if data == "turned" else (4,)
                for bits in (32,) if METHODS[name][1] == "float" else widths:
                    yield {"data": data, "method": name, "bits": bits, "seed": seed}


def read() -> list[dict[str, Any]]:
    return [json.loads(row) for row in TARGET.read_text().splitlines()] if TARGET.exists() else []


def spread(values: list[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def table(rows: list[dict[str, Any]]) -> str:
    out = [
        "| digits | bits | method | seeds | forwards | accuracy before | after, % | loss before | after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for data, bits, name in dict.fromkeys(
        (row["data"], row["bits"], row["method"]) for row in sorted(rows, key=_order)
    ):
        mine = [row for row in rows if (row["data"], row["bits"], row["method"]) == (data, bits, name)]
        spent = round(statistics.mean(row["forwards"] for row in mine))
        first, after = mine[0]["before"], [row["after"] for row in mine]
        out.append(
            f"| {data} | {bits} | {name} | {len(mine)} | {spent:,} | {first['accuracy']:.2f} | "
            f"{spread([one['accuracy'] for one in after], 2)} | {first['loss']:.3f} | "
            f"{spread([one['loss'] for one in after], 3)} |"
        )
    return "\n".join(out) + "\n"


def _order(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["data"], row["bits"], list(METHODS).index(row["method"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    if args.action == "table":
        print(table(read()), end="")
        return
    x, y, test_x, test_y = digits(args.data)
    model = trained(x, y)
    float_state.update(model.state_dict())
    sets = {"clean": ((x, y), (test_x, test_y)), "turned": ((turned(x), y), (turned(test_x), test_y))}
    done = {(row["data"], row["method"], row["bits"], row["seed"]) for row in read()}
    TARGET.parent.mkdir(exist_ok=True)
    with TARGET.open("a", encoding="utf-8") as file:
        for job in jobs():
            if (job["data"], job["method"], job["bits"], job["seed"]) not in done:
                file.write(json.dumps(run(job, model, *sets[job["data"]])) + "\n")
                file.flush()


if __name__ == "__main__":
    main()
