"""A pretrained sentence encoder at 4 bits, group 64, tuned on SST-2 by label sentences, at equal forwards.

    python experiments/minilm.py run --model FOLDER --data $FORQ_DATA --work FOLDER                # all that is missing
    python experiments/minilm.py run … --only qzo:0 --only qzo-paper@best:1                        # or some of it
    python experiments/minilm.py table                                                             # as Markdown

FOLDER is all-MiniLM-L6-v2 as transformers reads it. Every row of results/minilm.jsonl is one `forq tune` (or
`experiments/backprop.py`) in a process of its own, its command beside its numbers; a row that is there is not run
again, and processes of different ``--only`` may write side by side. `qzo` is the recipe that is called
qzo-slopes since 2026-11-29, on unbalanced batches as then. A method `name@lr` has its learning rate set;
`name@best` is the rate of seed 0 with the best validation accuracy (then loss), run for the other seeds and reported
on test. One step of back-propagation is counted as three forwards.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shakespeare import command, spread

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "results" / "minilm.jsonl"
FORWARDS = 2400
SEEDS = (0, 1, 2)

BATCH, BACKPROP_BATCH = 16, 16

# Steps that spend no more than FORWARDS: nine a step and a twentieth to calibrate, or two.
POPULATION, PAIRS = int(0.95 * FORWARDS) // 9, FORWARDS // 2
BACKPROP_STEPS = 100
RATES = {
    "qzo-paper": ("1e-6", "1e-5", "3e-5", "1e-4"),
    "mezo": ("1e-4",),
    "backprop": ("1e-3", "3e-3", "1e-2", "3e-2"),
}
UNTOUCHED = ("qzo", "qzo-paper", "mezo")

Row = dict[str, Any]


def words(name: str, lr: str | None, seed: int, quantized: Path, floating: Path) -> list[str]:
    """What is run, after ``python``; data and the run's folder come later."""
    if name == "backprop":
        assert lr is not None
        made = ["experiments/backprop.py", str(quantized), "--task", "sst2", "--what", "scales", "--lr", lr]
        return [*made, "--steps", str(BACKPROP_STEPS), "--seed", str(seed), "--option", f"batch_rows={BACKPROP_BATCH}"]
    steps = POPULATION if name == "qzo" else PAIRS
    made = ["-m", "forq", "tune", str(floating if name == "mezo" else quantized), "--task", "sst2"]
    made += ["--recipe", "qzo-slopes" if name == "qzo" else name, "--steps", str(steps), "--seed", str(seed)]
    made += ["--set", f"task.batch_rows={BATCH}", "--set", "task.balanced=false"]
    return made + (["--set", f"rule.lr={lr}"] if lr is not None else [])


def jobs(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Methods and seeds in the order they are best run; those of the best rates once seed 0 knows them."""
    found = [(name, seed) for seed in SEEDS for name in UNTOUCHED]
    found += [(f"{name}@{lr}", 0) for name, rates in RATES.items() for lr in rates]
    for name in RATES:
        lr = best_rate(name, rows)
        found += [(f"{name}@{lr}", seed) for seed in SEEDS[1:] if lr is not None]
    return found


def best_rate(name: str, rows: Sequence[Row]) -> str | None:
    """The rate of seed 0 that validated best; None while a rate is missing."""
    first = {row["method"]: row for row in rows if row["seed"] == 0}
    if any(f"{name}@{lr}" not in first for lr in RATES[name]):
        return None
    scores = {lr: first[f"{name}@{lr}"].get("validation", {}).get("after") for lr in RATES[name]}
    good = {lr: score for lr, score in scores.items() if score is not None}
    return max(good, key=lambda lr: (good[lr]["accuracy"], -good[lr]["loss"])) if good else None


def selected(only: Sequence[str], rows: Sequence[Row]) -> list[tuple[str, int]]:
    """What ``--only`` names: ``method:seed``, with ``@best`` resolved."""
    found = []
    for text in only:
        method, _, seed = text.rpartition(":")
        if method.endswith("@best"):
            name = method.removesuffix("@best")
            lr = best_rate(name, rows)
            if lr is None:
                raise SystemExit(f"{text}: run every rate of {name} on seed 0 first: {', '.join(RATES[name])}")
            method = f"{name}@{lr}"
        name, _, lr_or_none = method.partition("@")
        known = name in UNTOUCHED if not lr_or_none else name in RATES
        if not known or not seed.isdecimal():
            raise SystemExit(f"--only: expected method:seed with a method among {', '.join(UNTOUCHED)}, found {text!r}")
        found.append((method, int(seed)))
    return found


def run(method: str, seed: int, quantized: Path, floating: Path, data: Path, work: Path) -> Row:
    """One row: the process, its numbers, or its last word."""
    name, _, lr = method.partition("@")
    full = [*words(name, lr or None, seed, quantized, floating), "--data", str(data / "sst2")]
    folders = {"MODEL": floating, "FORQ_DATA": data, "WORK": work}
    if name != "backprop":
        out = work / hashlib.sha256(command(full, folders).encode()).hexdigest()[:16]
        shutil.rmtree(out, ignore_errors=True)  # of a process that was killed
        full += ["--out", str(out), "--json"]
    done = subprocess.run([sys.executable, *full], capture_output=True, text=True, cwd=ROOT, check=False)
    row: Row = {"method": method, "recipe": name, "lr": lr or None, "seed": seed, "label": "small real"}
    row["command"] = command(full, folders)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return row | {"error": said[-1] if said else f"exit code {done.returncode}, nothing said"}
    said = json.loads(done.stdout)
    spent = 3 * BACKPROP_STEPS if name == "backprop" else said["forwards"]
    scores = {split: {when: _numbers(said[split][when]) for when in ("before", "after")} for split in _SPLITS}
    return row | {"forwards": spent, **scores, "seconds": said["seconds"], "peak_mb": said["peak_mb"]}


_SPLITS = ("validation", "test")


def _numbers(score: dict[str, float]) -> dict[str, float]:
    return {name: score[name] for name in ("accuracy", "loss")}


def recorded() -> list[Row]:
    return [json.loads(line) for line in TARGET.read_text().splitlines()] if TARGET.exists() else []


def table(rows: Sequence[Row]) -> str:
    """Mean ± standard deviation over the seeds, methods in the order of the file."""
    out = [
        "| method | seeds | forwards | validation before | after | test before | after | test loss after | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        good = [row for row in mine if "error" not in row]
        if not good:
            out.append(f"| {method} | 0 of {len(mine)} | | {mine[0]['error'][:80]} | | | | | |")
            continue

        def shown(split: str, when: str, key: str, good: list[Row] = good) -> str:
            return spread([row[split][when][key] * (100 if key == "accuracy" else 1) for row in good])

        seeds = str(len(good)) if len(good) == len(mine) else f"{len(good)} of {len(mine)}"
        cells = [method, seeds, f"{good[0]['forwards']:,}"]
        cells += [shown(split, when, "accuracy") for split in _SPLITS for when in ("before", "after")]
        cells += [shown("test", "after", "loss"), f"{max(row['seconds'] for row in good):.0f}"]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--model", type=Path, help="folder of the float model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", action="append", default=[], help="method:seed; all that is missing by default")
    args = parser.parse_args()
    if args.action == "run":
        if not (args.model and args.data and args.work):
            parser.error("run needs --model, --data and --work")
        floating, data, work = args.model.resolve(), args.data.resolve(), args.work.resolve()
        work.mkdir(parents=True, exist_ok=True)
        quantized = work / "minilm-gptq4-g64"
        if not quantized.exists():
            made = [sys.executable, "-m", "forq", "quantize", str(floating), str(quantized), "--group-size", "64"]
            subprocess.run(made, check=True, stdout=sys.stderr)
        TARGET.parent.mkdir(exist_ok=True)
        while True:
            rows = recorded()
            done = {(row["method"], row["seed"]) for row in rows}
            wanted = selected(args.only, rows) if args.only else jobs(rows)
            job = next((job for job in wanted if job not in done), None)
            if job is None:
                break
            print(*job, file=sys.stderr)
            row = run(*job, quantized, floating, data, work)
            with TARGET.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print(table(recorded()))


if __name__ == "__main__":
    main()
