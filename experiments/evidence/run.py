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
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from files import Files
from methods import METHODS, chosen
from problems import PROBLEMS, Problem
from rates import best_of, open_rates

from forq.runs import journal

sys.path.insert(0, str(Path(__file__).parents[1]))
from learning import course
from shakespeare import command

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "results" / "evidence.jsonl"
SCORES = 20
"""Validation scores of a run: its curve, and the steps among which the best is taken."""

Row = dict[str, Any]


def recorded(path: Path | None = None) -> list[Row]:
    path = path or TARGET
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def best_rate(problem: str, method: str, rows: list[Row]) -> str | None:
    """The rate that validated best with the first seed; None while the search goes on, or where all rates failed."""
    tried = tried_rates(problem, method, rows)
    judged = PROBLEMS[problem].judged
    if not tried or open_rates(METHODS[method].rates, tried, judged):
        return None
    best = best_of(tried, judged)
    return None if "error" in tried[best] else best


def tried_rates(problem: str, method: str, rows: list[Row]) -> dict[str, Row]:
    """The rows of the first seed, by rate, in the arithmetic of the table."""
    own, computed_in = PROBLEMS[problem], computed(PROBLEMS[problem], method)
    cell = (problem, method, own.seeds[0], computed_in)
    here = [row for row in rows if row["rate"] is not None]
    return {row["rate"]: row for row in here if (*(row[k] for k in _SEARCHED), _computed_in(row)) == cell}


_SEARCHED = ("problem", "method", "seed")


def jobs(only: list[str], path: Path | None = None) -> Iterator[tuple[str, str, str | None, int]]:
    """Problem, method, rate and seed of all cells that are not on record, seed by seed."""
    for name, problem in PROBLEMS.items():
        for seed in problem.seeds:
            for method in chosen(problem.core, problem.apart):
                if only and name not in only and f"{name}:{method}" not in only:
                    continue
                spec = METHODS[method]
                if spec.by == "nothing" and seed != problem.seeds[0]:
                    continue  # the same score again
                if spec.rates and seed == problem.seeds[0]:
                    yield from _search(name, method, path)
                    continue
                rate = best_rate(name, method, recorded(path)) if spec.rates else None
                cell = (name, method, rate, seed)
                searched = rate is not None or not spec.rates
                if searched and (*cell, computed(problem, method)) not in {_key(r) for r in recorded(path)}:
                    yield cell


def _search(problem: str, method: str, path: Path | None) -> Iterator[tuple[str, str, str | None, int]]:
    """The cells of a rate's search, one after another, since each depends on those before it."""
    offered: set[str] = set()
    while True:
        tried = tried_rates(problem, method, recorded(path))
        due = [r for r in open_rates(METHODS[method].rates, tried, PROBLEMS[problem].judged) if r not in offered]
        if not due:
            return
        offered.add(due[0])
        yield problem, method, due[0], PROBLEMS[problem].seeds[0]


def computed(problem: Problem, method: str) -> str:
    """What a method computes in."""
    return "float" if METHODS[method].by == "gradients" else problem.activations


def _key(row: Row) -> tuple[Any, ...]:
    """A cell, and what it was computed in: rows in float do not say it."""
    return (*(row[part] for part in ("problem", "method", "rate", "seed")), _computed_in(row))


def _computed_in(row: Row) -> str:
    return str(row.get("activations", "float"))


def words(name: str, method: str, rate: str | None, seed: int, files: Files, data: Path, out: Path) -> list[str]:
    """What is run, after ``python``."""
    problem, spec = PROBLEMS[name], METHODS[method]
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


def _named(cell: tuple[str, str, str | None, int]) -> str:
    return "-".join(map(str, cell))


def run(cell: tuple[str, str, str | None, int], files: Files, data: Path, work: Path) -> Row:
    """One row: the process and its numbers, or its last word."""
    name, method, rate, seed = cell
    problem = PROBLEMS[name]
    out = work / _named(cell)
    shutil.rmtree(out, ignore_errors=True)  # of a process that was killed
    full = words(*cell, files, data, out)
    folders = {"FORQ_DATA": data, "WORK": work, **{base.upper(): path for base, path in files.given.items()}}
    row: Row = {"problem": name, "method": method, "rate": rate, "seed": seed, "label": problem.label}
    if (computed_in := computed(problem, method)) != "float":
        row["activations"] = computed_in
    row["command"] = command(full, folders)
    began, spent = time.perf_counter(), processor_seconds()
    done = subprocess.run([sys.executable, *full], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return row | {"error": said[-1] if said else f"exit code {done.returncode}, nothing said"}
    found = json.loads(done.stdout)
    row["seconds"] = round(time.perf_counter() - began, 1)
    row["processor_seconds"] = round(processor_seconds() - spent, 1)
    by = METHODS[method].by
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
    for cell in jobs(args.only, args.out):
        if time.monotonic() - began > args.limit:
            return
        if PROBLEMS[cell[0]].base not in files.given:
            continue
        lock = FileLock(args.work / f"{_named(cell)}.lock")
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
