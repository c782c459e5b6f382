"""What a step costs beside its forwards, what a run holds in memory, and how fast a replay is.

    python -m benchmarks.bench --small PATH [--demo PATH] [--text FILE] [--out results/bench.json]

Times are ratios of medians, measured in turn in one process (A B A B …), because absolute times on a shared machine
mean little. Memory is the peak of a process of its own, less what it held after the imports. The model of about 100
million parameters has random weights and is made on the way: its speed is real, its losses mean nothing. With --text,
`forq tune` itself is run on that text with its default recipe, and what it took is reported beside the parts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.held import layer_memory, memory
from benchmarks.parts import batch, interleaved, loss, random_llama
from forq.checkpoints import Checkpoint
from forq.inspection.memory import summary
from forq.layers.kernels import ort, reference
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight
from forq.models.convert.quantize import quantize
from forq.models.load import load
from forq.models.space import space
from forq.noise.bits import Bits
from forq.noise.law import law
from forq.runs import engine
from forq.runs import replay as rebuild
from forq.runs.engine import step
from forq.runs.oracles.local import Local
from forq.runs.oracles.tape import Tape
from forq.scalars.estimators.one_sided import OneSided
from forq.scalars.estimators.two_point import TwoPoint
from forq.scalars.losses import from_means
from forq.scalars.protocols import Method
from forq.scalars.rules.clip import Clip
from forq.scalars.rules.sgd import SGD


def speed(quantized: Path, floating: Path | None, rows: int, length: int, rounds: int) -> dict[str, Any]:
    """Step ÷ its forwards for both estimators, against MeZO on the float model, and replay ÷ training."""
    model: Any = load(quantized)
    moves, data = space(model), batch(model, rows, length)

    def forward() -> float:
        return loss(model, data)

    oracle = Local(moves, lambda number: None, lambda _: forward())
    rules = (Clip(100.0), SGD(1e-6))
    two = Method(TwoPoint(seed=0, eps=1e-2), rules)
    eight = Method(OneSided(seed=0, eps=1e-2, directions=8, noise=("rows:rademacher", "rademacher")), rules)
    tape = Tape([engine.Line(0, "train", from_means((1.0, 1.01)))])
    tasks: dict[str, Callable[[], object]] = {
        "two forwards": lambda: (forward(), forward()),
        "two-point step": lambda: step(0, moves, oracle, two, two.init()),
        "nine forwards": lambda: [forward() for _ in range(9)],
        "qzo step": lambda: step(0, moves, oracle, eight, eight.init()),
        "replayed two-point step": lambda: step(0, moves, tape, two, two.init()),
    }
    if floating is not None:
        plain: Any = load(floating)
        weights = space(plain, "all-float", "free")

        def plain_forward(_: object = None) -> float:
            return loss(plain, data)

        mezo = Method(TwoPoint(seed=0, eps=1e-3, noise=("gaussian",)), (SGD(1e-9),))
        answers = Local(weights, lambda number: None, plain_forward)
        tasks["fp32 two forwards"] = lambda: (plain_forward(), plain_forward())
        tasks["MeZO step, fp32 model"] = lambda: step(0, weights, answers, mezo, mezo.init())
    seconds = interleaved(tasks, rounds)
    found = {
        "tokens": rows * length,
        "scales": moves.size,
        "leaves": len(moves.leaves),
        "milliseconds_for_two_forwards": round(1e3 * seconds["two forwards"], 1),
        "two-point step / two forwards": seconds["two-point step"] / seconds["two forwards"],
        "qzo step / its nine forwards": seconds["qzo step"] / seconds["nine forwards"],
        "training / replay": seconds["two-point step"] / seconds["replayed two-point step"],
    }
    if floating is not None:
        found["4-bit forward / fp32 forward"] = seconds["two forwards"] / seconds["fp32 two forwards"]
        found["4-bit two-point step / MeZO step"] = seconds["two-point step"] / seconds["MeZO step, fp32 model"]
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}


TOKENS = (1, 16, 128, 512)


def kernel_speed(rounds: int) -> dict[str, float]:
    """Each kernel ÷ torch's fp32 linear by tokens, one layer of 2048 × 2048 at 4 bits, group 64."""
    size, group = 2048, 64
    codes = torch.randint(0, 256, (size, size // 2), dtype=torch.uint8)
    weight = QuantWeight(codes, torch.full((size // group, size), 8, dtype=torch.int8), 4, group)
    scales, dense, scratch = torch.rand(size // group, size), torch.randn(size, size), Scratch()
    kernel, found = ort.Kernel(weight), {}
    for tokens in TOKENS:
        x = torch.randn(tokens, size)
        tasks: dict[str, Callable[[], object]] = {
            "fp32": lambda x=x: torch.nn.functional.linear(x, dense),  # type: ignore[misc]
            "ort": lambda x=x: kernel.matmul(x, scales),  # type: ignore[misc]
            "reference": lambda x=x: reference.matmul(x, weight, scales, None, scratch),  # type: ignore[misc]
        }
        seconds = interleaved(tasks, rounds)
        for name in ("ort", "reference"):
            found[f"{name} / fp32 linear, {tokens} tokens"] = round(seconds[name] / seconds["fp32"], 2)
    return found


STEPS = 40
ONE_THREAD = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def tuned(ckpt: Path, text: Path, out: Path) -> dict[str, Any]:
    """What `forq tune` with the default recipe says of its run; scored at the beginning and the end only."""
    words = [sys.executable, "-m", "forq", "tune", str(ckpt), "--task", "text", "--data", str(text), "--out", str(out)]
    words += ["--recipe", "qzo-slopes", "--steps", str(STEPS), "--eval-every", str(STEPS), "--json", "--set"]
    words += ["task.validation_rows=64", "--set", "task.test_rows=64"]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ | ONE_THREAD)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def replay_speed(ckpt: Path, text: Path, where: Path, rounds: int) -> dict[str, float]:
    """Training ÷ replay of a real run of the default recipe, both for the stepping alone.

    Training is the time between the first line and the last (the first waited for the first score). Replay is
    `forq verify` with a base, less the same of a journal that holds no line: that one loads and digests the base.
    """
    run = where / "replayed"
    tuned(ckpt, text, run)
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    clock = [row["seconds"] for row in rows if "step" in row]
    whole, empty = where / "whole.jsonl", where / "empty.jsonl"
    shutil.copyfile(run / "journal.jsonl", whole)
    empty.write_bytes(whole.read_bytes().partition(b"\n")[0] + b"\n")
    seconds = interleaved(
        {"all": lambda: rebuild.verify(whole, ckpt), "load": lambda: rebuild.verify(empty, ckpt)}, rounds
    )
    training, replay = clock[-1] - clock[0], seconds["all"] - seconds["load"]
    return {
        "default recipe: steps, calibration included": len(clock),
        "default recipe: training seconds": round(training, 3),
        "default recipe: replay seconds": round(replay, 3),
        "default recipe: training / replay": round(training / replay, 1),
    }


_IMPORTS = """
from forq.inspection.process import peak_bytes
import forq.cli._tuning, forq.runs.tune, forq.runs.run, forq.tasks.text, forq.recipes.presets.qzo_slopes
import forq.formats.gptq
import rich.progress
import forq.scalars.estimators.one_sided, forq.noise.laws.rows, forq.noise.laws.rademacher
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.models.llama import modeling_llama
print(peak_bytes() // 1_000_000)
"""


def tune_memory(ckpt: Path, text: Path, where: Path) -> dict[str, Any]:
    """Peak of a whole `forq tune` (scores, saving and both tests included) above its imports, beside the bound."""
    words = [sys.executable, "-c", _IMPORTS]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ | ONE_THREAD)
    imports = int(done.stdout)
    peak = tuned(ckpt, text, where / "measured")["peak_mb"]
    found = summary(Checkpoint.open(ckpt))
    packed, scales, floats = found.quantized // 2, 8 * found.scales, 4 * (found.parameters - found.quantized)
    above, bound = (peak - imports) * 1e6, packed + scales + floats + 300e6
    return {
        "forq tune: peak_mb": peak,
        "forq tune: imports_mb": imports,
        "forq tune: peak_above_imports_mb": round(above / 1e6, 1),
        "forq tune: bound_mb (packed + 8 scales + floats in fp32 + 300)": round(bound / 1e6, 1),
        "forq tune: within": above <= bound,
    }


def noise_speed() -> dict[str, float]:
    """Milliseconds to draw 22 million signs, the scales of a model of 2.8 billion parameters at group 128."""
    import numpy as np

    out, draw, bits = np.empty(1 << 16, np.float32), law("rademacher").draw, Bits(1, 2)
    chunks = 22_000_000 // len(out)
    seconds = interleaved({"draw": lambda: [draw(bits, k * len(out), out) for k in range(chunks)]}, 5)
    return {"milliseconds_for_22_million_signs": round(1e3 * seconds["draw"], 1)}


_COLUMNS = {
    "step / two forwards": "two-point step / two forwards",
    "forward / fp32": "4-bit forward / fp32 forward",
    "peak MB": "peak_above_imports_mb",
    "training / replay": "training / replay",
}


def table(found: dict[str, Any]) -> str:
    """One line a model; – where it was not measured."""
    lines = ["| model | " + " | ".join(_COLUMNS) + " |", "|---" * (len(_COLUMNS) + 1) + "|"]
    for name, measured in found.items():
        if "two-point step / two forwards" in measured:
            cells = [str(measured.get(key, "–")) for key in _COLUMNS.values()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=Path, help="a float checkpoint, TinyStories-656K for example")
    parser.add_argument("--encoder", type=Path, help="a float sentence encoder, all-MiniLM-L6-v2 for example")
    parser.add_argument("--demo", type=Path, help="the shipped checkpoint")
    parser.add_argument("--text", type=Path, help="a text to tune on, for the parts that run forq tune")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="of the speeds; memory is measured with one")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    where = Path(tempfile.mkdtemp())
    try:
        found: dict[str, Any] = {"noise (toy)": noise_speed()}
        found["kernels, one layer (random weights)"] = kernel_speed(args.rounds) | layer_memory()
        if args.small is not None:
            small = quantize(args.small, where / "small").path
            found["TinyStories-656K, group 64 (small real)"] = {
                **speed(small, args.small, 8, 128, args.rounds),
                **memory(small, 8, 128),
            }
            if args.text is not None:
                found["TinyStories-656K, group 64 (small real)"] |= replay_speed(small, args.text, where, 5)
        if args.encoder is not None:
            encoder = quantize(args.encoder, where / "encoder", group_size=64).path
            found["all-MiniLM-L6-v2, group 64 (small real)"] = {
                **speed(encoder, args.encoder, 16, 32, args.rounds),
                **memory(encoder, 16, 32),
            }
        if args.demo is not None:
            measured = {**speed(args.demo, None, 8, 128, args.rounds), **memory(args.demo, 8, 128)}
            if args.text is not None:
                measured |= tune_memory(args.demo, args.text, where)
            found["shipped demo model (small real)"] = measured
        floating, big = random_llama(where)
        found["random Llama, 104 M, group 128 (random weights)"] = speed(
            big, floating, 4, 128, max(3, args.rounds // 4)
        )
        found["random Llama, 104 M, group 128 (random weights)"] |= memory(big, 4, 128)
    finally:
        shutil.rmtree(where)
    print(table(found), file=sys.stderr)
    text = json.dumps({"threads": args.threads, "torch": torch.__version__, **found}, indent=2)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
