"""What directions of each row's own cost beside plain forwards: a step of qzo, and its parts.

    python -m benchmarks.by_row CKPT --data FILE --task text [--set task.batch_rows=16] [--rounds 7] [--out FILE]

Ratios of medians of processor time, measured in turn in one process. A step has nine forwards: the point itself, two
directions that all rows share, six of the rows' own.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.parts import interleaved
from forq.models.load import load
from forq.recipes.plan import plan
from forq.runs import engine
from forq.runs.config import TaskConfig, complete
from forq.runs.open_task import open_task
from forq.runs.oracles.curvature import WithCurvature
from forq.runs.trainer import Trainer
from forq.scalars.moves import HERE
from forq.scalars.protocols import Method


def measure(checkpoint: str, task_config: TaskConfig, sets: list[str], rounds: int) -> dict[str, float]:
    model = load(checkpoint, "cpu")
    sets = ["estimator.eps=0.003", *sets]
    config = complete("qzo", sets, task=task_config, steps=1000, checkpoint=checkpoint, device="cpu")
    task = open_task(config.task, model, 0)
    trainer = Trainer(config, model, task)
    if trainer.why_shared is not None:
        raise SystemExit(f"{checkpoint}: {trainer.why_shared}")
    method = plan(trainer.config.method, seed=0, steps=1000)
    assert isinstance(method, Method)
    space, batch = trainer.space, task.batch(0)
    oracle = WithCurvature(space, lambda _: batch, lambda b, at, u: task.predictions(model, b, at, u), 0)
    probes = method.estimator.ask(0)

    def shown(probe: object) -> Callable[[], object]:
        def ask() -> None:
            with space.displaced(probe):
                task.loss(model, batch)

        return ask

    found = interleaved(
        {
            "forward": lambda: task.loss(model, batch),
            "point": shown(HERE),
            "shared": shown(probes[1]),
            "own": shown(probes[-1]),
            "step": lambda: engine.step(0, space, oracle, method, method.init()),
        },
        rounds,
        time.process_time,
    )
    plain = found["forward"]
    return {
        "shared ÷ forward": round(found["shared"] / plain, 3),
        "own ÷ forward": round(found["own"] / plain, 3),
        "step ÷ its forwards": round(found["step"] / plain / method.estimator.forwards, 3),
        "forward, seconds": round(plain, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--task", default="text")
    parser.add_argument("--data", required=True)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, object] = {
        "checkpoint": Path(args.checkpoint).name,
        **measure(args.checkpoint, TaskConfig(name=args.task, data=args.data), args.sets, args.rounds),
        "threads": 1,
        "cores": os.cpu_count(),
        "torch": version("torch"),
    }
    print(json.dumps(found, ensure_ascii=False))
    if args.out is not None:
        rows = json.loads(args.out.read_text()) if args.out.exists() else []
        rows = [row for row in rows if row["checkpoint"] != found["checkpoint"]]
        args.out.write_text(json.dumps([*rows, found], ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
