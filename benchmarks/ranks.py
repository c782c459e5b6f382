"""Ranks against one process: bytes a step, forwards a second, a join by replay, and a simulation of up to 1,024 ranks.

    OMP_NUM_THREADS=1 python -m benchmarks.ranks --small SMALL --model MODEL --text TEXT --out results/bench-ranks.json

SMALL is a checkpoint whose steps take milliseconds, MODEL one whose forward passes take most of a step (SmolLM2). Runs
of one and of two ranks alternate. The simulation takes what was measured here, and injects delays.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forq.models.load import load
from forq.runs import config as configs
from forq.runs import journal
from forq.runs.open_task import open_task
from forq.runs.ranks.replica import Replica
from forq.runs.ranks.schedule import shares
from forq.runs.trainer import Trainer

WIRES = {
    "8 shared directions": ("--recipe", "qzo-slopes"),
    "Gauss-Newton, 2 shared directions and 6 by row": ("--recipe", "qzo"),
    "Gauss-Newton, 8 shared directions": ("--recipe", "qzo-shared"),
    "Gauss-Newton, 32 shared directions": ("--recipe", "qzo-shared", "--set", "estimator.directions=32"),
}
EVAL = ("--set", "task.validation_rows=4", "--set", "task.test_rows=4")


def tuned(ranks: int, base: Path, text: Path, out: Path, steps: int, *more: str) -> Path:
    """A run of so many ranks with one thread each; its folder."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    words = ["-m", "forq", "tune", str(base), "--task", "text", "--data", str(text), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launch, *words, "--steps", str(steps), "--eval-every", str(steps), *EVAL, *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def wires(base: Path, text: Path, work: Path) -> dict[str, dict[str, float]]:
    """Bytes a step of two ranks, by method."""
    found = {}
    for place, (name, settings) in enumerate(WIRES.items()):
        run = tuned(2, base, text, work / f"wire {place}", 4, "--set", "task.max_length=64", *settings)
        told = json.loads((run / "ranks.json").read_text())
        found[name] = {"bytes_a_step": round(told["ranks"][1]["bytes"] / told["steps"], 1)}
    return found


def rate(run: Path) -> float:
    """Forward passes a second in the training steps, the first left out; the journal's, not those done twice."""
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "seconds" in row and "loss" in row]
    return float((steps[-1]["forwards"] - steps[0]["forwards"]) / (steps[-1]["seconds"] - steps[0]["seconds"]))


def speed(base: Path, text: Path, work: Path, steps: int, rounds: int, directions: int) -> dict[str, Any]:
    """Forward passes a second of one process, two and four ranks, in turn; the digests of their journals."""
    rows = ("--set", "task.max_length=128", "--set", "task.batch_rows=2")
    settings = ("--set", f"estimator.directions={directions}", *rows)
    found: dict[str, Any] = {"directions": directions, "steps": steps, "tokens": 256}
    for ranks in (1, 2, 4):
        found[str(ranks)] = {"forwards_a_second": []}
    for turn in range(rounds):
        for ranks in (1, 2, 4):
            if ranks > (os.cpu_count() or 1) and (turn or directions > 8):
                continue  # more ranks than cores: once, for the digest
            run = tuned(ranks, base, text, work / f"{directions} {turn} {ranks}", steps, *settings)
            found[str(ranks)]["forwards_a_second"].append(round(rate(run), 3))
            # Of the journal: the tensors that so few steps save are often those of the base.
            found[str(ranks)]["digest"] = hashlib.blake2b(
                (run / "journal.jsonl").read_bytes(), digest_size=16
            ).hexdigest()
    medians = [statistics.median(found[ranks]["forwards_a_second"]) for ranks in ("1", "2")]
    return {**found, "two_over_one": round(medians[1] / medians[0], 3), "cores": os.cpu_count()}


def join(run: Path, lines: int) -> dict[str, Any]:
    """Seconds to follow the lines of a run, loading left out; of as many lines as there are, and of 1,000 by that."""
    config = configs.read(run / "config.toml")
    model = load(config.checkpoint, config.device, kernel=config.kernel)
    replica = Replica(Trainer(config, model, open_task(config.task, model, config.seed)))
    past = [line.losses for line in journal.read(run / "journal.jsonl").lines if line.kind != "saved"][:lines]
    began = time.perf_counter()
    replica.follow(past)
    seconds = time.perf_counter() - began
    return {"lines": len(past), "seconds": round(seconds, 3), "of_1000_lines": round(1000 * seconds / len(past), 2)}


def simulated(
    ranks: int, probes: int, forward: float, scatter: float, apply: float, message: float, delay: float, seed: int = 0
) -> float:
    """Forward passes a second of so many ranks.

    Args:
        forward: seconds of a forward pass; each is longer by a random share with this ``scatter``.
        apply: seconds in which every rank applies the move.
        message: seconds in which the chief handles a message; they come one after the other.
        delay: seconds that a message is on its way.
    """
    draw = random.Random(seed)
    dealt, total = shares(probes, [1.0] * ranks, 0, from_point=False), 0.0
    for _ in range(100):
        done = [sum(forward * draw.lognormvariate(0.0, scatter) for _ in share) for share in dealt]
        own, others = done[0], sorted(done[1:])
        for arrives in others:
            own = max(own, arrives + delay) + message
        hops = max(0, ranks - 1).bit_length()  # the answer goes down a tree
        total += own + hops * (delay + message) + apply
    return 100 * probes / total


def simulation(forward: float, apply: float, message: float) -> list[dict[str, Any]]:
    rows = []
    for probes in (9, 33, 129, 1025):
        for delay, name in ((0.0001, "one machine"), (0.001, "a local network"), (0.05, "the internet")):
            one = simulated(1, probes, forward, 0.05, apply, message, delay)
            for ranks in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
                found = simulated(ranks, probes, forward, 0.05, apply, message, delay)
                rows.append({"probes": probes, "delay": name, "ranks": ranks, "speedup": round(found / one, 2)})
    return rows


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--small", "--model", "--text", "--out"):
        parser.add_argument(name, type=Path, required=True)
    for name, value in (("--steps", 3), ("--rounds", 2), ("--lines", 1000)):
        parser.add_argument(name, type=int, default=value)
    asked = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        result: dict[str, Any] = {
            "command": "python -m benchmarks.ranks",
            "bytes": wires(asked.small, asked.text, work),
        }
        result["speed"] = [speed(asked.model, asked.text, work, asked.steps, asked.rounds, n) for n in (8, 32)]
        long = tuned(1, asked.small, asked.text, work / "long", asked.lines, "--set", "task.max_length=32")
        result["join"] = {"small": join(long, asked.lines), "model": join(work / "8 0 1", asked.lines)}
        ranks = json.loads((work / "8 0 2" / "ranks.json").read_text())["ranks"]
        forward = ranks[0]["busy"] / ranks[0]["forwards"]
        apply = result["join"]["model"]["seconds"] / result["join"]["model"]["lines"]
        result["simulation"] = {
            "forward": round(forward, 4),
            "apply": round(apply, 4),
            "message": 0.0005,
            "rows": simulation(forward, apply, 0.0005),
        }
    asked.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
