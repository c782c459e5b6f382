"""What a step costs beside its forwards on ONNX graphs, and what a process holds while codes move.

    python -m benchmarks.graphs FOLDER …            # a line of JSON for each
    python -m benchmarks.graphs --make FOLDER       # of a Llama of 104 million random parameters, made there

``forwards`` are those of the file as it is, all integers constants: with codes as inputs onnxruntime dequantises them
anew in every product, and the second ratio holds that apart from what forq adds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime  # noqa: F401  the peak is above what it takes itself
import torch
from tests.fixtures.onnx_llama import llama, rounded

from benchmarks.grid import METHOD
from benchmarks.parts import batch, interleaved, random_llama
from forq.checkpoints import Checkpoint
from forq.inspection.memory import summary
from forq.models.load import load
from forq.models.space import space
from forq.runs.engine import step
from forq.runs.oracles.local import Local
from forq.scalars.estimators.two_point import TwoPoint
from forq.scalars.protocols import Method
from forq.scalars.rules.clip import Clip
from forq.scalars.rules.sgd import SGD
from forq.tasks.objectives.losses import mean_nll
from forq.tokens.batches import Batch

METHODS = {"scales": Method(TwoPoint(seed=0, eps=1e-2), (Clip(100.0), SGD(1e-6))), "codes": METHOD}

_MEMORY = """
import json, sys
from benchmarks.graphs import peaks
print(json.dumps(peaks(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
"""


def make(folder: Path) -> Path:
    """A graph of random weights at 4 bits, blocks of 32; its embedding and norms in floats."""
    floating, _ = random_llama(folder)
    ckpt = Checkpoint.open(floating)
    tensors = {name: ckpt.read(name).float().numpy() for name in ckpt.info}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    (folder / "onnx").mkdir()
    onnx.save_model(llama(ckpt.config, tensors, rounded(tensors, 32)), str(folder / "onnx" / "model.onnx"))
    shutil.copyfile(floating / "config.json", folder / "onnx" / "config.json")
    return folder / "onnx"


def loss(model: Any, data: Batch) -> float:
    """Next-token loss."""
    with torch.inference_mode():
        return float(mean_nll(model, data))


def stepping(model: Any, kind: str, data: Batch) -> Callable[[], object]:
    """A two-point step of a kind."""
    moves = space(model, kind, "relative" if kind == "scales" else "cells")
    oracle = Local(moves, lambda number: None, lambda _: loss(model, data))
    method = METHODS[kind]
    return lambda: step(0, moves, oracle, method, method.init())


def speed(path: Path, rows: int, length: int, rounds: int) -> dict[str, float]:
    """A step of scales and one of codes, over two plain forwards; and over two with codes as inputs."""
    plain, inputs = load(path), load(path)
    data = batch(plain, rows, length)
    space(inputs, "codes", "cells")
    tasks: dict[str, Callable[[], object]] = {
        "forwards": lambda: (loss(plain, data), loss(plain, data)),
        "inputs": lambda: (loss(inputs, data), loss(inputs, data)),
        **{kind: stepping(load(path), kind, data) for kind in METHODS},
    }
    seconds = interleaved(tasks, rounds)
    found = {f"{kind}: step / two forwards": round(seconds[kind] / seconds["forwards"], 3) for kind in METHODS}
    beside = {"codes: step / two forwards with codes as inputs": round(seconds["codes"] / seconds["inputs"], 3)}
    return found | beside | {"two forwards, ms": round(1e3 * seconds["forwards"], 1)}


def peaks(path: str, kind: str, rows: int, length: int) -> dict[str, float]:
    """Most memory above what the imports take, after three steps."""
    from forq.inspection.process import peak_bytes

    imports = peak_bytes()
    model: Any = load(path)
    once = stepping(model, kind, batch(model, rows, length))
    for _ in range(3):
        once()
    return {f"{kind}: peak above imports, MB": round((peak_bytes() - imports) / 1e6, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--make", type=Path)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for path in [*args.paths, *([] if args.make is None else [make(args.make)])]:
        found: dict[str, Any] = {"path": path.name, "load": os.getloadavg()[0], "tokens": args.rows * args.length}
        found |= speed(path, args.rows, args.length, args.rounds)
        for kind in METHODS:
            words = [sys.executable, "-c", _MEMORY, str(path), kind, str(args.rows), str(args.length)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            found |= json.loads(done.stdout)
        said = summary(load(path).checkpoint)  # type: ignore[arg-type]
        found["codes, MB"] = round(said.quantized * (said.bits or 0) / 8e6, 1)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
