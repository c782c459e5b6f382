"""What bounds steps of a few random directions on the small pipeline: too few directions, or too noisy slopes?

    python experiments/diffusion/bound.py --data $FORQ_DATA --work WORK          # after pretrain.py and adapt.py

A step draws signs over all scales, as `qzo-shared` does, and takes their slopes from a gradient by back-propagation: no
probe and no left-out row is needed. The length along the projected gradient is Gauss-Newton's, of the same rows, times
0.6. So what is left of the method is the number of directions and the number of rows that the slopes are of. Gains are
of the test loss of adapt.py, after as many steps. Every row of results/diffusion-bound.jsonl is one run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from adapt import BATCH, folder
from pipeline import ROOM
from torch import Tensor

from forq.models.diffusion.encoders import Encoders
from forq.models.load import load
from forq.tasks.kinds.pictures import pixels
from forq.tasks.text_to_image import open as open_task
from twins import Scaled, swap  # adapt.py has put its folder on the path

TARGET = Path(__file__).parents[2] / "results" / "diffusion-bound.jsonl"
ALL = 0
"""Directions: the gradient itself."""
CELLS = [(8, BATCH), (8, 128), (8, 600), (32, BATCH), (32, 128), (128, 128), (ALL, BATCH), (ALL, 128)]
STEPS, SHARE, FAR = 200, 0.6, 1e-3


def run(base: Path, where: Path, cache: Path, directions: int, rows: int, seed: int) -> dict[str, Any]:
    """The losses before and after the steps; slopes are of ``rows`` rows."""
    model: Any = load(base)
    encoded = Encoders(model.checkpoint, cache, torch.device("cpu"), pixels)
    settings: dict[str, Any] = {"resolution": 28, "batch_rows": rows, "text_tokens": ROOM, "samples": 0}
    task = open_task(where, encoded, seed=seed, micro_batch=64, **settings)
    before = task.evaluate(model, "test").loss
    thetas = swap(model, Scaled)
    draw = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        batch = task.batch(step)
        for theta in thetas:
            theta.grad = None
        task.loss_tensor(model, batch).backward()
        gradient = [theta.grad for theta in thetas]
        way = projected(gradient, directions, draw)
        slope = sum(float((w * g).sum()) for w, g in zip(way, gradient, strict=True))
        with torch.no_grad():
            here = task._measured(model, batch)[1]
            add(thetas, way, FAR)
            change = (task._measured(model, batch)[1] - here) / FAR
            bend = 2.0 * float(change.square().mean())
            add(thetas, way, -FAR - SHARE * slope / bend)
    found = {split: task.evaluate(model, split).loss for split in ("validation", "test")}
    return {"directions": directions or "all", "rows": rows, "seed": seed, "steps": STEPS, "before": before, **found}


def projected(gradient: list[Tensor], directions: int, draw: torch.Generator) -> list[Tensor]:
    """The gradient's share in so many random signs: the mean of slope times direction."""
    if directions == ALL:
        return [g.clone() for g in gradient]
    way = [torch.zeros_like(g) for g in gradient]
    for _ in range(directions):
        z = [torch.randint(0, 2, g.shape, generator=draw).float() * 2 - 1 for g in gradient]
        slope = sum(float((a * g).sum()) for a, g in zip(z, gradient, strict=True))
        for w, a in zip(way, z, strict=True):
            w.add_(a, alpha=slope / directions)
    return way


@torch.no_grad()
def add(thetas: list[torch.nn.Parameter], way: list[Tensor], size: float) -> None:
    for theta, w in zip(thetas, way, strict=True):
        theta.add_(w, alpha=size)


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--data", type=Path, required=True)
    args.add_argument("--work", type=Path, required=True)
    args.add_argument("--seeds", type=int, nargs="+", default=[0])
    told = args.parse_args()
    where = folder(told.data, told.work, "thick")
    lines = TARGET.read_text(encoding="utf-8").splitlines() if TARGET.is_file() else []
    done = {(row["directions"], row["rows"], row["seed"]) for row in map(json.loads, lines)}
    for seed in told.seeds:
        for directions, rows in CELLS:
            if (directions or "all", rows, seed) not in done:
                row = run(told.work / "base-nf4", where, told.work / "cache", directions, rows, seed)
                with TARGET.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)


if __name__ == "__main__":
    main()
