"""What moving whole cells costs beside its forwards, and what activations of 8 bits save.

    python -m benchmarks.grid --small PATH --demo PATH [--out results/bench-grid.json]

Ratios of medians, measured in turn in one process. Memory is the peak of a process of its own, less what it held after
the imports: no copy of the weights in floats would fit under the bound beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.parts import batch, interleaved, loss, random_llama
from forq.models.adapters.lora import add_lora
from forq.models.convert.quantize import quantize
from forq.models.load import load
from forq.models.space import space
from forq.runs.engine import step
from forq.runs.oracles.local import Local
from forq.scalars.estimators.two_point import TwoPoint
from forq.scalars.protocols import Method
from forq.scalars.rules.sign_step import SignStep

METHOD = Method(TwoPoint(seed=0, eps=1.0, noise=("cells:0.03",)), (SignStep(None, vote=True),))

_MEMORY = """
import json, sys
from transformers.models.llama import modeling_llama
from forq.inspection.memory import summary
from forq.inspection.process import peak_bytes as peak
imports = peak()
from benchmarks.grid import METHOD, batch, load, loss, space, step, Local
model = load(sys.argv[1], kernel="reference"); moves = space(model, "codes", "cells")
data = batch(model, 4, 128)
oracle = Local(moves, lambda n: None, lambda _: loss(model, data))
for number in range(3): step(number, moves, oracle, METHOD, METHOD.init())
print(json.dumps({"peak": peak() - imports, "codes": summary(model.checkpoint).quantized}))
"""


def speed(ckpt: Path, rows: int, length: int, rounds: int) -> dict[str, float]:
    """A step of codes, and one of adapters on a grid, over two plain forwards of the same kernel."""
    found = {}
    for what in ("codes", "lora"):
        model: Any = load(ckpt, kernel="reference")
        if what == "lora":
            add_lora(model, bits=8)
        data, plain = batch(model, rows, length), load(ckpt, kernel="reference")
        moves = space(model, what, "cells")
        oracle = Local(moves, lambda number: None, lambda _, model=model, data=data: loss(model, data))
        tasks: dict[str, Callable[[], object]] = {
            "forwards": lambda plain=plain, data=data: (loss(plain, data), loss(plain, data)),
            "step": lambda moves=moves, oracle=oracle: step(0, moves, oracle, METHOD, METHOD.init()),
        }
        seconds = interleaved(tasks, rounds)
        found[f"{what}: step / two forwards"] = round(seconds["step"] / seconds["forwards"], 3)
    return found


def activations(ckpt: Path, rows: int, length: int, rounds: int) -> dict[str, float]:
    """A forward with activations of 8 bits over one of the reference and one in floats."""
    models: dict[str, Any] = {"int8": load(ckpt, activations="int8"), "reference": load(ckpt)}
    data = batch(models["int8"], rows, length)
    seconds = interleaved({name: lambda model=model: loss(model, data) for name, model in models.items()}, rounds)
    here, there = (loss(models[name], data) for name in ("int8", "reference"))
    return {"int8 / reference": round(seconds["int8"] / seconds["reference"], 3), "loss off by": round(here - there, 4)}


def memory(ckpt: Path) -> dict[str, float]:
    """Peak of three steps of codes above the imports, and what the weights would take in floats."""
    done = subprocess.run([sys.executable, "-c", _MEMORY, str(ckpt)], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return {
        "peak above imports, MB": round(found["peak"] / 1e6, 1),
        "codes, MB": round(found["codes"] / 2e6, 1),
        "the same in floats, MB": round(4 * found["codes"] / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=Path, required=True, help="a float checkpoint, TinyStories-656K for example")
    parser.add_argument("--demo", type=Path, required=True, help="the shipped checkpoint")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    where = Path(tempfile.mkdtemp())
    try:
        small = quantize(args.small, where / "small").path
        rows = quantize(args.small, where / "rows", bits=8, group_size=-1).path
        floating, big = random_llama(where)
        big8 = quantize(floating, where / "big8", bits=8, group_size=-1).path
        few = max(3, args.rounds // 3)
        found = {
            "TinyStories-656K": speed(small, 8, 128, args.rounds) | activations(rows, 8, 128, args.rounds),
            "shipped demo model": speed(args.demo, 8, 128, args.rounds),
            "random Llama, 104 M": speed(big, 4, 128, few) | activations(big8, 4, 128, few) | memory(big),
        }
    finally:
        shutil.rmtree(where)
    text = json.dumps({"torch": torch.__version__, "threads": 1, **found}, indent=2)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
