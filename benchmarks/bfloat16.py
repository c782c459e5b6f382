"""What ``--activations bfloat16`` saves on a task's batches, and by how much their losses are off.

    python -m benchmarks.bfloat16 CKPT --task sst2 --data FOLDER [--set task.batch_rows=16] [--threads 1] [--out FILE]
    python -m benchmarks.bfloat16 sizes [--out FILE]

The first measures a model by three ways in turn, batch by batch: float by the kernels that it has there (ONNX Runtime's
among them), forq's own products (AMX), and torch's. Seconds
are of the processor with one thread, of the clock with several. ``sizes`` is torch's product alone: four matrices of
SmolLM2's shapes, 300 times each, by 512 tokens, by 192 to 960 in steps of an eighth, and by any number of them.
Results are added to the file of --out.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from forq.inspection.process import peak_bytes
from forq.layers.kernels import bfloat16
from forq.layers.kernels.native import products
from forq.models.load import load
from forq.runs.config import task_config
from forq.runs.open_task import open_task

SHAPES = ((1536, 576), (576, 1536), (576, 576), (192, 576))


def batches(checkpoint: str, task: str, data: str, sets: list[str], count: int) -> dict[str, Any]:
    """Median seconds in float, the other ways ÷ it, and the root mean square by which losses differ from float's."""
    plain, rounded = load(checkpoint, "cpu"), load(checkpoint, "cpu", activations="bfloat16")
    opened: Any = open_task(task_config(task, data, sets), plain, 0)
    able = products.able
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    ways = {"float": able, "own": able, "torch": lambda columns: False}
    if not able(32):
        del ways["own"]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    losses: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(-1, count):  # the first warms up
        batch = opened.batch(max(number, 0))
        for way, multiplies in ways.items():
            products.able = multiplies  # type: ignore[assignment]
            model = plain if way == "float" else rounded
            began = clock()
            with torch.inference_mode():
                loss = opened.loss(model, batch)
            if number >= 0:
                seconds[way].append(clock() - began)
                losses[way].append(float(loss))
    products.able = able
    found: dict[str, Any] = {"float, seconds": round(statistics.median(seconds["float"]), 3)}
    for way in list(ways)[1:]:
        pairs = zip(seconds[way], seconds["float"], strict=True)
        found[f"{way} / float"] = round(statistics.median(one / other for one, other in pairs), 2)
        off = [(one - other) ** 2 for one, other in zip(losses[way], losses["float"], strict=True)]
        found[f"{way}, losses off by"] = round(statistics.fmean(off) ** 0.5, 5)
    return found


def sizes() -> dict[str, float]:
    """Milliseconds of torch's four products, and megabytes by which the process's peak grew."""
    draw = random.Random(0)
    tokens: dict[str, Callable[[], int]] = {
        "one size": lambda: 512,
        "in steps of an eighth": lambda: bfloat16.steps(draw.randint(192, 960)),
        "any size": lambda: draw.randint(192, 960),
    }
    weights = [torch.randn(shape).bfloat16() for shape in SHAPES]
    inputs = {columns: torch.randn(1024, columns).bfloat16() for _, columns in SHAPES}
    found: dict[str, float] = {}
    for name, size in tokens.items():
        before, began, count, rows = peak_bytes(), time.process_time(), 300, 0
        for _ in range(count):
            rows += (some := size())
            for weight in weights:
                torch.mm(inputs[weight.shape[1]][:some], weight.t())
        found[f"{name}, milliseconds for 512 tokens"] = round(1e3 * (time.process_time() - began) * 512 / rows, 2)
        found[f"{name}, MB more"] = round((peak_bytes() - before) / 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a checkpoint, or sizes")
    parser.add_argument("--task")
    parser.add_argument("--data")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.checkpoint == "sizes":
        name, found = "sizes", sizes()
    else:
        name = " ".join([Path(args.checkpoint).name, args.task, *args.sets, f"threads={args.threads}"])
        found = batches(args.checkpoint, args.task, args.data, args.sets, args.batches)
    print(name, found)
    if args.out is not None:
        kept = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {"torch": torch.__version__}
        args.out.write_text(json.dumps(kept | {name: found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
