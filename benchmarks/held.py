"""What layers and a run hold in memory, each measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_LAYERS = """
import torch
torch.set_num_threads(1)
from forq.layers.kernels import ort
from forq.layers.heap import trim
from forq.layers.weight import QuantWeight
def held():
    text = open("/proc/self/status").read()
    return 1024 * int(text.split("VmRSS:")[1].split()[0])
def kernel(rows, columns):
    codes = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8)
    made = ort.Kernel(QuantWeight(codes, torch.full((columns // 64, rows), 8, dtype=torch.int8), 4, 64))
    del codes
    trim()  # as the loader does
    return made
def forward(one, columns, rows):
    return one.matmul(torch.zeros(128, columns), torch.zeros(columns // 64, rows))
first = kernel(64, 64); forward(first, 64, 64)
before = held()
layers = [kernel(2048, 4096) for _ in range(24)]
for one in layers: forward(one, 4096, 2048)
trim()
print((held() - before) / (24 * 2048 * 2048))
"""


def layer_memory() -> dict[str, float]:
    """What 24 layers of 4 MiB of codes hold under ``ort`` after a forward, ÷ those codes. Scales are not among it, nor
    the operator's working memory, which is one layer's whatever their number."""
    done = subprocess.run([sys.executable, "-c", _LAYERS], check=True, capture_output=True, text=True)
    return {"layers in memory / packed codes": round(float(done.stdout), 3)}


_MEMORY = """
import json, sys, torch, transformers
import forq.runs.run, forq.models.load, forq.models.space, forq.tasks.objectives.losses
torch.set_num_threads(1)
from transformers.models.llama import modeling_llama
from forq.inspection.process import peak_bytes as peak
imports = peak()
from benchmarks.parts import batch, loss
from forq.models.load import load
from forq.models.space import space
from forq.inspection.memory import summary
from forq.scalars.protocols import Method
from forq.runs.engine import step
from forq.scalars.estimators.one_sided import OneSided
from forq.runs.oracles.local import Local
from forq.scalars.rules.sgd import SGD
model = load(sys.argv[1]); moves = space(model); data = batch(model, int(sys.argv[2]), int(sys.argv[3]))
method = Method(OneSided(seed=0, eps=1e-2), (SGD(1e-9),))
oracle = Local(moves, lambda n: None, lambda _: loss(model, data))
for number in range(3): step(number, moves, oracle, method, method.init())
found = summary(model.checkpoint)
floats = sum(p.numel() * 4 for p in model.parameters())
print(json.dumps({"above_imports": peak() - imports, "packed": found.quantized // 2, "scales": found.scales,
                  "floats_in_fp32": floats}))
"""


def memory(quantized: Path, rows: int, length: int) -> dict[str, Any]:
    """Peak of a process of its own above its imports, beside the promised bound."""
    words = [sys.executable, "-c", _MEMORY, str(quantized), str(rows), str(length)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    found = json.loads(done.stdout)
    bound = found["packed"] + 8 * found["scales"] + found["floats_in_fp32"] + 300e6
    return {
        "peak_above_imports_mb": round(found["above_imports"] / 1e6, 1),
        "packed_codes_mb": round(found["packed"] / 1e6, 1),
        "two_fp32_copies_of_the_scales_mb": round(8 * found["scales"] / 1e6, 1),
        "unquantized_tensors_in_fp32_mb": round(found["floats_in_fp32"] / 1e6, 1),
        "bound_without_activations_mb": round(bound / 1e6, 1),
        "within": found["above_imports"] <= bound,
    }
