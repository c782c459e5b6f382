"""Runs of a few steps on a published network, with the checks of the calibration and without.

    python experiments/short_runs.py CHECKPOINT --data $FORQ_DATA/tinyshakespeare/input.txt --work FOLDER --name NAME
    python experiments/short_runs.py table

Every row of results/short_runs.jsonl is one run of `qzo`: the validation loss before the first step and after the last,
on the same windows. `--set rule.checks=0` is the calibration of forq before the checks, in the same process.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path

import torch

import forq
from forq.runs.config import TaskConfig, complete
from forq.runs.metrics import Scored
from forq.runs.open_task import open_task
from forq.runs.run import Run
from forq.tasks import Score, Split, Task

RESULTS = Path(__file__).parents[1] / "results" / "short_runs.jsonl"
STEPS, CHECKS = (2, 4, 8, 20), (0, 3)


class StartedOnce:
    """A task whose start is scored once for all runs, and that writes no samples."""

    def __init__(self, task: Task, start: list[Score]) -> None:
        self.digest, self.describe, self.batch, self.loss = task.digest, task.describe, task.batch, task.loss
        self._task, self._start, self._calls = task, start, 0

    def evaluate(self, model: torch.nn.Module, split: Split) -> Score:
        """The score; the first of a run is that of the weights every run begins with."""
        self._calls += 1
        if self._calls > 1:
            return self._task.evaluate(model, split)
        if not self._start:
            self._start.append(self._task.evaluate(model, split))
        return self._start[0]


def run(
    model: torch.nn.Module, args: argparse.Namespace, start: list[Score], checks: int, steps: int, seed: int
) -> dict[str, object]:
    """One run's settings, losses and what its calibration found; nothing is saved."""
    options = {"max_length": args.tokens // args.rows, "batch_rows": args.rows, "validation_rows": args.validation}
    task = TaskConfig(name="text", data=args.data, options=options)
    config = complete(
        "qzo-slopes",  # the default when the rows were measured
        [f"rule.checks={checks}"],
        steps=steps,
        eval_every=steps,
        checkpoint=args.action,
        task=task,
        seed=seed,
    )
    folder = args.work / f"{args.name}-{args.tokens}-{steps}-{seed}-{checks}"
    shutil.rmtree(folder, ignore_errors=True)
    started = Run.begin(folder, config, model, StartedOnce(open_task(task, model, seed), start))
    masters = {name: tensor.clone() for name, tensor in started.space.masters().items()}
    scores, found, forwards = [], {}, 0
    for event in started.events():
        if isinstance(event, Scored):
            scores.append(event.score.loss)
            continue
        forwards += event.forwards
        if event.kind == "calibrate" and event.notes:
            found = {name: float(f"{value:.4g}") for name, value in event.notes.items() if math.isfinite(value)}
    started.space.restore(masters)
    shutil.rmtree(folder)
    return {
        "model": args.name,
        "tokens": args.tokens,
        "rows": args.rows,
        "steps": steps,
        "seed": seed,
        "checks": checks,
        "forwards": forwards,
        "validation": {"before": scores[0], "after": scores[-1]},
        "found": found,
    }


def table() -> str:
    """The rows as Markdown: without the checks beside with them."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    out = [
        "| model | tokens a batch | steps | seed | start | without checks | with checks | forwards of each |",
        "|---|---|---|---|---|---|---|---|",
    ]
    keys = dict.fromkeys((row["model"], row["tokens"], row["steps"], row["seed"]) for row in rows)
    for key in keys:
        pair = {row["checks"]: row for row in rows if (row["model"], row["tokens"], row["steps"], row["seed"]) == key}
        after = [f"{pair[c]['validation']['after']:.4f}" if c in pair else "" for c in CHECKS]
        spent = ", ".join(str(pair[c]["forwards"]) for c in CHECKS if c in pair)
        start = next(iter(pair.values()))["validation"]["before"]
        out.append(f"| {' | '.join(map(str, key))} | {start:.4f} | {after[0]} | {after[1]} | {spent} |")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", metavar="CHECKPOINT", help="a checkpoint, or the word table")
    parser.add_argument("--data")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--validation", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, nargs="*", default=STEPS)
    parser.add_argument("--checks", type=int, nargs="*", default=CHECKS)
    args = parser.parse_args()
    if args.action == "table":
        print(table(), end="")
        return
    model = forq.load(args.action)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    done = {tuple(row[name] for name in ("model", "tokens", "steps", "seed", "checks")) for row in rows}
    start: list[Score] = []
    for steps in args.steps:
        for seed in range(args.seeds):
            for checks in args.checks:
                if (args.name, args.tokens, steps, seed, checks) in done:
                    continue  # a stopped experiment goes on where it was
                row = run(model, args, start, checks, steps, seed)
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
