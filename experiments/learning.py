"""What a forward teaches: the default recipe and the one before it, on six problems, at equal forward passes.

    python experiments/learning.py run --data $FORQ_DATA --work FOLDER --minilm FOLDER --smollm2 FILE  # all
    python experiments/learning.py run … --only tinystories-1000:qzo:0 --only minilm:qzo:1             # or some of it
    python experiments/learning.py table                                                                # as Markdown

MINILM is all-MiniLM-L6-v2 as transformers reads it, SMOLLM2 the published Q4_1 file. Every row of
results/learning.jsonl is one `forq tune` in a process of its own, its command beside its numbers and its course.
Batches are 8 × 128 tokens of text, or 16 rows, with as many of each class; test is scored on the saved file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shakespeare import command, spread

from forq.scalars.quadratic import DAMPINGS

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "results" / "learning.jsonl"
RECIPES, SEEDS = ("qzo", "qzo-shared", "qzo-slopes"), (0, 1, 2)
TEXT = ("--task", "text", "--set", "task.validation_rows=64")
ROWS = ("--task", "sst2", "--set", "task.batch_rows=16")
PROBLEMS: Mapping[str, tuple[str, int, tuple[str, ...]]] = {
    "tinystories-1000": ("tinystories", 1000, TEXT),
    "tinystories-4000": ("tinystories", 4000, TEXT),
    "tinystories-nf4": ("tinystories-nf4", 1000, TEXT),
    "minilm": ("minilm", 2400, ROWS),
    "smollm2-400": ("smollm2", 400, (*ROWS, "--set", "task.validation_rows=160", "--eval-every", "14")),
    "smollm2": ("smollm2", 1000, (*ROWS, "--set", "task.validation_rows=160", "--eval-every", "36")),
}
"""Name: model, forward passes, further words."""

Row = dict[str, Any]


def quantized(floating: Path, out: Path, *how: str) -> Path:
    """The model at 4 bits in groups of 64, as GPTQ stores them or ``how`` says; made once."""
    if not out.exists():
        words = ["-m", "forq", "quantize", str(floating), str(out), *(how or ("--group-size", "64"))]
        subprocess.run([sys.executable, *words], check=True, stdout=sys.stderr)
    return out


def run(job: str, args: argparse.Namespace) -> Row:
    """One row: the process and its numbers, or its last word."""
    problem, recipe, seed = job.split(":")
    model, forwards, words = PROBLEMS[problem]
    data, work = args.data, args.work
    checkpoints = {
        "tinystories": lambda: quantized(data / "tinystories-656k", work / "tinystories-gptq4-g64"),
        "tinystories-nf4": lambda: quantized(data / "tinystories-656k", work / "tinystories-nf4", "--to", "nf4"),
        "minilm": lambda: quantized(args.minilm, work / "minilm-gptq4-g64"),
        "smollm2": lambda: args.smollm2,
    }
    out = work / job.replace(":", "-")
    shutil.rmtree(out, ignore_errors=True)  # of a process that was killed
    rows = data / "sst2" if "sst2" in words else data / "tinyshakespeare" / "input.txt"
    full = ["-m", "forq", "tune", str(checkpoints[model]()), *words, "--data", str(rows), "--recipe", recipe]
    full += ["--forwards", str(forwards), "--seed", seed, "--out", str(out), "--json"]
    done = subprocess.run([sys.executable, *full], capture_output=True, text=True, cwd=ROOT, check=False)
    folders = {"FORQ_DATA": data, "WORK": work, "SMOLLM2": args.smollm2 or work}
    row: Row = {"problem": problem, "recipe": recipe, "seed": int(seed), "label": "small real"}
    row["command"] = command(full, folders)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return row | {"error": said[-1] if said else f"exit code {done.returncode}, nothing said"}
    found = json.loads(done.stdout)
    scores = {split: {when: _numbers(found[split][when]) for when in ("before", "after")} for split in _SPLITS}
    return row | {
        "forwards": found["forwards"],
        **scores,
        "course": course(out),
        "confirmed": confirmed(out),
        "seconds": found["seconds"],
    }


_SPLITS = ("validation", "test")


def _numbers(score: Mapping[str, float]) -> dict[str, float]:
    return {name: round(score[name], 5) for name in ("accuracy", "loss") if name in score}


def course(out: Path) -> list[list[float]]:
    """Forward passes, seconds so far and the validation loss of every score."""
    found, seconds = [], 0.0
    for line in (out / "metrics.jsonl").read_text().splitlines():
        body = json.loads(line)
        if "score" in body:
            found.append([body["forwards"], round(seconds), round(body["score"]["loss"], 4)])
        else:
            seconds = body["seconds"]
    return found


def confirmed(out: Path) -> dict[str, list[list[float]]]:
    """By quarters of the run and damping: what held-out rows confirm of the best step, and its gain in nats.

    Of a step they confirm −slope ÷ curvature, its best length, from the means over the quarter; the gain is
    slope² ÷ 2 · curvature.
    """
    lines = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()[1:]]
    held = [line["C"] for line in lines if line["k"] == "train" and "C" in line]
    found: dict[str, list[list[float]]] = {}
    for quarter in range(4 if len(held) >= 4 else 0):
        some = held[quarter * len(held) // 4 : (quarter + 1) * len(held) // 4]
        for place, damping in enumerate(DAMPINGS):
            slope, bend = (statistics.fmean(row[3 * place + at] for row in some) for at in (0, 2))
            numbers = [round(-slope / bend, 4), round(slope * abs(slope) / -2 / bend, 5)] if bend > 0 else [0.0, 0.0]
            found.setdefault(str(damping), []).append(numbers)
    return found


def recorded() -> list[Row]:
    return [json.loads(line) for line in TARGET.read_text().splitlines()] if TARGET.exists() else []


def table(rows: list[Row]) -> str:
    """Mean ± standard deviation over the seeds."""
    out = [
        "| problem | recipe | seeds | forwards | validation loss | test loss | after | test accuracy | after |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for problem in PROBLEMS:
        for recipe in RECIPES:
            mine = [row for row in rows if (row["problem"], row["recipe"]) == (problem, recipe) and "error" not in row]
            if not mine:
                continue

            def shown(split: str, when: str, name: str, mine: list[Row] = mine) -> str:
                values = [row[split][when].get(name) for row in mine]
                factor = 100 if name == "accuracy" else 1
                return "–" if None in values else spread([value * factor for value in values])

            cells = [problem, recipe, str(len(mine)), f"{mine[0]['forwards']:,}", shown("validation", "after", "loss")]
            cells += [shown("test", when, name) for name in ("loss", "accuracy") for when in ("before", "after")]
            out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("run", "table"))
    for name in ("data", "work", "minilm", "smollm2"):
        parser.add_argument(f"--{name}", type=lambda text: Path(text).resolve())
    parser.add_argument(
        "--only", action="append", default=[], help="problem:recipe:seed; all that is missing by default"
    )
    args = parser.parse_args()
    if args.action == "run":
        if not (args.data and args.work):
            parser.error("run needs --data and --work")
        args.work.mkdir(parents=True, exist_ok=True)
        everything = [f"{problem}:{recipe}:{seed}" for seed in SEEDS for problem in PROBLEMS for recipe in RECIPES]
        for job in args.only or everything:
            if job in {f"{row['problem']}:{row['recipe']}:{row['seed']}" for row in recorded()}:
                continue
            print(job, file=sys.stderr)
            row = run(job, args)
            with TARGET.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print(table(recorded()))


if __name__ == "__main__":
    main()
