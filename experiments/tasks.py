"""The papers' tasks, data of one's own, and a reward as the objective: forward-only runs of the default recipe.

    python experiments/tasks.py run --data $FORQ_DATA --work FOLDER                 # all that is missing
    python experiments/tasks.py run … --only cb:0                                   # or some of it
    python experiments/tasks.py table                                               # as Markdown

Every row of results/tasks.jsonl is one `forq tune` in a process of its own, its command beside its numbers; a row that
is there is not run again. The model is the one that forq ships, 3.9 million parameters at 4 bits; the jobs `reward` and
`encoder` run on the sentence encoder that experiments/minilm.py quantized (FOLDER/minilm-gptq4-g64).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shakespeare import command, spread

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "results" / "tasks.jsonl"
SEEDS = (0, 1, 2)
DEMO, ENCODER = "src/forq/demo/checkpoint", "minilm-gptq4-g64"

OLDER = ["--recipe", "qzo-slopes"]  # the default when these rows were measured, on unbalanced batches
UNBALANCED = ["--set", "task.balanced=false"]
SHORT = ["--set", "task.max_length=256", "--steps", "100", *OLDER]
ROWS_64 = ["--task", "sst2", "--data", "$FORQ_DATA/sst2", "--set", "task.batch_rows=64", *OLDER, *UNBALANCED]

JOBS: dict[str, tuple[str, list[str]]] = {
    "own": (DEMO, ["--task", "completion", "--data", "examples/notes.jsonl", "--steps", "150", *OLDER]),
    "cb": (DEMO, ["--task", "cb", "--data", "$FORQ_DATA/cb", *SHORT, *UNBALANCED]),
    "rte": (DEMO, ["--task", "rte", "--data", "$FORQ_DATA/rte", *SHORT, *UNBALANCED]),
    "squad": (DEMO, ["--task", "squad", "--data", "$FORQ_DATA/squad-sample", "--tokens-per-probe", "2048", *SHORT]),
    "reward": (ENCODER, [*ROWS_64, "--reward", "accuracy", "--steps", "100"]),
    "encoder": (ENCODER, [*ROWS_64, "--steps", "300"]),
}

Row = dict[str, Any]


def run(name: str, seed: int, data: Path, work: Path) -> Row:
    """One row: the process, its numbers, or its last word."""
    model, words = JOBS[name]
    folder = str(work / model) if model == ENCODER else model
    out = work / f"{name}-{seed}"
    shutil.rmtree(out, ignore_errors=True)  # of a process that was killed
    full = ["-m", "forq", "tune", folder, *(word.replace("$FORQ_DATA", str(data)) for word in words)]
    full += ["--seed", str(seed), "--out", str(out), "--json"]
    done = subprocess.run([sys.executable, *full], capture_output=True, text=True, cwd=ROOT, check=False)
    row: Row = {"job": name, "seed": seed, "label": "small real"}
    row["command"] = command(full, {"FORQ_DATA": data, "WORK": work})
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return row | {"error": said[-1] if said else f"exit code {done.returncode}, nothing said"}
    said = json.loads(done.stdout)
    return row | {key: said[key] for key in ("forwards", "validation", "test", "seconds", "peak_mb")}


def recorded() -> list[Row]:
    return [json.loads(line) for line in TARGET.read_text().splitlines()] if TARGET.exists() else []


def table(rows: Sequence[Row]) -> str:
    """Mean ± standard deviation over the seeds."""
    out = ["| job | seeds | forwards | test rows | test loss before | after | score before | after |", "|---" * 8 + "|"]
    for job in dict.fromkeys(row["job"] for row in rows):
        good = [row for row in rows if row["job"] == job and "error" not in row]
        if not good:
            continue
        test = [row["test"] for row in good]
        score = next((name for name in ("accuracy", "f1") if name in test[0]["before"]), None)
        cells = [job, str(len(good)), f"{good[0]['forwards']:,}", str(test[0]["before"]["rows"])]
        cells += [spread([one[when]["loss"] for one in test]) for when in ("before", "after")]
        for when in ("before", "after"):
            cells.append("–" if score is None else f"{score} {spread([100 * one[when][score] for one in test])}")
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", action="append", default=[], metavar="JOB:SEED")
    args = parser.parse_args()
    if args.action == "run":
        if not (args.data and args.work):
            parser.error("run needs --data and --work")
        data, work = args.data.resolve(), args.work.resolve()
        jobs = [tuple(text.rpartition(":")[::2]) for text in args.only]
        for name, seed in jobs or [(name, str(seed)) for seed in SEEDS for name in JOBS]:
            if name not in JOBS or not seed.isdecimal():
                parser.error(f"--only: expected job:seed with a job among {', '.join(JOBS)}, found {name}:{seed}")
            if JOBS[name][0] == ENCODER and not (work / ENCODER).exists():
                print(f"{name}: skipped, experiments/minilm.py makes {ENCODER} in --work", file=sys.stderr)
                continue
            if any((row["job"], row["seed"]) == (name, int(seed)) for row in recorded()):
                continue
            print(name, seed, file=sys.stderr)
            row = run(name, int(seed), data, work)
            with TARGET.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print(table(recorded()))


if __name__ == "__main__":
    main()
