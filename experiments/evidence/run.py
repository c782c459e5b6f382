"""Forward-only methods and their rivals on the same quantized files, at equal forward passes.

    python experiments/evidence/run.py --data $FORQ_DATA --work FOLDER --minilm FOLDER --smollm2 FILE   # all
    python experiments/evidence/run.py … --only tinystories --only minilm:qzo                           # or some of it
    python experiments/evidence/run.py … --only diffusion --diffusion FOLDER                    # pretrain.py's pipeline
    python experiments/evidence/run.py … --activations float --out results/evidence-arithmetic.jsonl       # or bfloat16
    python experiments/evidence/page.py                                                                      # the page

Every row of results/evidence.jsonl is one process, its command beside its numbers. A row that is there is not run
again. Rates are chosen on validation with the first seed (rates.py); the rows of the others stay, as the cost of the
search. The batches are those of ``forq tune``: the same rows for every method of a seed. What a method saves is its
best on validation.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from cells import ROOT, TARGET, Cell, Row, due
from filelock import FileLock, Timeout
from files import Files
from methods import METHODS
from problems import PROBLEMS

from forq.runs import journal

sys.path.insert(0, str(Path(__file__).parents[1]))
from learning import course
from shakespeare import command

SCORES = 20
"""Validation scores of a run: its curve, and the steps among which the best is taken."""


def words(cell: Cell, files: Files, data: Path, out: Path) -> list[str]:
    """What is run, after ``python``."""
    problem, spec, rate, seed = PROBLEMS[cell.problem], METHODS[cell.method], cell.rate, cell.seed
    file = str(files.of(problem.base, spec.form))
    rows = str(data / problem.data if problem.data else files.rows(problem.base))
    if spec.by == "gradients":
        assert rate is not None
        made = ["experiments/backprop.py", file, "--task", problem.task, "--data", rows, *spec.words, "--lr", rate]
        made += ["--steps", str(problem.forwards // 3), "--eval-every", str(problem.forwards // 3 // SCORES)]
        return [*made, "--seed", str(seed), *_options(problem.options)]
    # What is the default is not said, so that the commands of earlier rows stay as they are.
    computed = [] if problem.activations == "float" else ["--activations", problem.activations]
    if spec.by == "nothing":
        return ["-m", "forq", "eval", file, "--task", problem.task, "--data", rows, *problem.sets, *computed, "--json"]
    # `forq tune` takes a twentieth of its steps between scores, if it is told nothing.
    made = ["-m", "forq", "tune", file, "--task", problem.task, "--data", rows, *problem.sets, *computed, *spec.words]
    made += [] if rate is None else ["--set", f"rule.lr={rate}"]
    return [*made, "--forwards", str(problem.forwards), "--seed", str(seed), "--out", str(out), "--json"]


def _options(options: Any) -> list[str]:
    return [word for name, value in options.items() for word in ("--option", f"{name}={value}")]


def run(cell: Cell, files: Files, data: Path, work: Path) -> Row:
    """One row: the process and its numbers, or its last word."""
    problem = PROBLEMS[cell.problem]
    out = work / cell.name
    shutil.rmtree(out, ignore_errors=True)  # of a process that was killed
    full = words(cell, files, data, out)
    folders = {"FORQ_DATA": data, "WORK": work, **{base.upper(): path for base, path in files.given.items()}}
    row: Row = {**cell._asdict(), "label": problem.label}
    if cell.activations != "float":
        row["activations"] = cell.activations
    row["command"] = command(full, folders)
    began, spent = time.perf_counter(), processor_seconds()
    done = subprocess.run([sys.executable, *full], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return row | {"error": said[-1] if said else f"exit code {done.returncode}, nothing said"}
    found = json.loads(done.stdout)
    row["seconds"] = round(time.perf_counter() - began, 1)
    row["processor_seconds"] = round(processor_seconds() - spent, 1)
    by = METHODS[cell.method].by
    if by == "nothing":
        return row | {"forwards": 0, "test": {"after": _numbers(found)}}
    scores = {split: {when: _numbers(found[split][when]) for when in ("before", "after")} for split in _SPLITS}
    row |= {**scores, "peak_mb": found["peak_mb"], "imports_mb": imports_mb(problem.base)}
    if by == "gradients":
        return row | {"forwards": 3 * found["steps"], "course": found["course"]}
    digest = journal.read(out / "journal.jsonl").lines[-1].digest
    row |= {"forwards": found["forwards"], "course": course(out), "digest": digest}
    shutil.rmtree(out)  # a checkpoint for every cell would fill a disk
    return row


def processor_seconds() -> float:
    """Of all processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


_SPLITS = ("validation", "test")


def _numbers(score: Mapping[str, Any]) -> dict[str, float]:
    return {name: round(score[name], 5) for name in ("accuracy", "loss") if name in score}


_IMPORTS = {
    "resnet": "import onnxruntime",
    "diffusion": "from diffusers import AutoencoderKL, SD3Transformer2DModel",
}
"""What a run imports beside forq, by base."""


@cache
def imports_mb(base: str) -> int:
    """Peak memory of a process that imports what a run imports, and does nothing."""
    code = "import forq.runs.run, forq.inspection.process as p\n"
    code += _IMPORTS.get(base, "import transformers.models.llama.modeling_llama") + "\nprint(p.peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return int(done.stdout) // 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    bases = ("minilm", "smollm2", "gemma", "diffusion")
    for name in ("data", "work", *bases):
        parser.add_argument(f"--{name}", type=lambda text: Path(text).resolve(), required=name in ("data", "work"))
    parser.add_argument("--only", action="append", default=[], help="a problem, or problem:method; all by default")
    parser.add_argument("--activations", choices=("float", "bfloat16"), help="of every problem; each has its own")
    parser.add_argument("--out", type=Path, default=TARGET, help="where rows are read and written")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no cell begins")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    given = {name: getattr(args, name) for name in bases if getattr(args, name) is not None}
    here = {"tinystories": args.data / "tinystories-656k", "resnet": args.data / "resnet20-cifar10"}
    files = Files({**here, **given}, args.data, args.work)
    began = time.monotonic()
    if args.activations is not None:
        for name, problem in PROBLEMS.items():
            PROBLEMS[name] = replace(problem, activations=args.activations)
    for cell in due(args.only, args.out):
        if time.monotonic() - began > args.limit:
            return
        if PROBLEMS[cell.problem].base not in files.given:
            continue
        lock = FileLock(args.work / f"{cell.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue  # another process runs it
        with lock:
            print(*cell, file=sys.stderr, flush=True)
            row = run(cell, files, args.data, args.work)
            with args.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
