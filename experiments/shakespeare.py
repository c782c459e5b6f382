"""TinyStories-656K at 4 bits, group 64, tuned on tinyshakespeare, at equal forwards.

    python experiments/shakespeare.py run --data $FORQ_DATA --what main --work FOLDER     # or ddc, grid, lora
    python experiments/shakespeare.py table                                               # as Markdown

Every row is one `forq tune` (or `experiments/backprop.py`) in a process of its own, its command beside its numbers.
The learning rates of `mezo` and `qzo-paper` rows that name one were chosen by the validation loss of seed 0 and are
reported on test; the back-propagation rows use one fixed rate each, 1e-2 (scales) and
3e-3 (LoRA), and are not tuned. A recorded command runs from the repository's root with FORQ_DATA and WORK set to
the two folders.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FORWARDS = 4000
SEEDS = range(5)
LIMITS = ("--set", "task.validation_rows=64")

# Steps that spend no more than 4,000 forwards: nine a step and a twentieth to calibrate, or two.
POPULATION, PAIRS = int(0.95 * FORWARDS) // 9, FORWARDS // 2
MEZO_LRS = ("1e-6", "1e-5", "1e-4", "3e-4", "1e-3", "3e-3")
PAPER_LRS = ("1e-6", "1e-5", "1e-4", "3e-4", "1e-3")
VOTES = int(0.95 * FORWARDS) // 2
SHARES = ("0.0001", "0.001", "0.01")
CLIPS = ("off", "0.3", "1", "3")


def tune(name: str, ckpt: Path, recipe: str, steps: int, seed: int, *sets: str) -> dict[str, Any]:
    words = ["-m", "forq", "tune", str(ckpt), "--task", "text", "--recipe", recipe, "--steps", str(steps)]
    words += ["--seed", str(seed), *LIMITS, *(word for text in sets for word in ("--set", text))]
    return {"method": name, "seed": seed, "words": words}


def backprop(name: str, ckpt: Path, what: str, lr: float, steps: int, seed: int) -> dict[str, Any]:
    words = ["experiments/backprop.py", str(ckpt), "--what", what, "--lr", str(lr), "--steps", str(steps)]
    words += ["--seed", str(seed), "--option", "validation_rows=64"]
    return {"method": name, "seed": seed, "words": words}


def main_jobs(ckpt: Path, floating: Path) -> list[dict[str, Any]]:
    jobs = []
    for seed in SEEDS:
        jobs += [
            tune("qzo (untouched)", ckpt, "qzo-slopes", POPULATION, seed),
            tune("qzo-paper (untouched)", ckpt, "qzo-paper", PAIRS, seed),
            backprop("back-propagation, scales, 100 steps", ckpt, "scales", 1e-2, 100, seed),
            backprop("back-propagation, LoRA r 8, 100 steps", ckpt, "lora", 3e-3, 100, seed),
        ]
    for lr in MEZO_LRS:
        jobs.append(tune(f"mezo, lr {lr}", floating, "mezo", PAIRS, 0, f"rule.lr={lr}"))
    for lr in PAPER_LRS:
        jobs.append(tune(f"qzo-paper, lr {lr}", ckpt, "qzo-paper", PAIRS, 0, f"rule.lr={lr}"))
    return jobs


def tuned_jobs(ckpt: Path, floating: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The other seeds of the learning rates whose seed 0 validated best."""
    jobs = []
    for family, recipe, where in (("mezo, lr ", "mezo", floating), ("qzo-paper, lr ", "qzo-paper", ckpt)):
        first = [row for row in rows if row["method"].startswith(family) and row["seed"] == 0]
        best = min(first, key=lambda row: row["validation"]["after"])
        lr = best["method"].removeprefix(family)
        jobs += [tune(best["method"], where, recipe, PAIRS, seed, f"rule.lr={lr}") for seed in SEEDS if seed]
    return jobs


def ddc_jobs(ckpt: Path) -> list[dict[str, Any]]:
    """C in units of the rms slope at the start (about 1.09 here), at the default step and at four times it."""
    return [
        tune(f"newton {newton}, C {clip}", ckpt, "qzo-slopes", 110, seed, f"rule.clip={clip}", f"rule.newton={newton}")
        for newton in ("0.25", "1.0")
        for clip in CLIPS
        for seed in range(3)
    ]


def grid_jobs(ckpt: Path) -> list[dict[str, Any]]:
    """The integer codes in place of the scales: the calibrated size, and shares of coordinates set by hand."""
    jobs = [tune("zoqo (untouched)", ckpt, "zoqo", VOTES, seed) for seed in range(3)]
    shares = [tune(f"zoqo, sparse {p}", ckpt, "zoqo", PAIRS, 0, f"estimator.noise=sparse:{p}") for p in SHARES]
    return [*jobs, tune("zoqo-paper (untouched)", ckpt, "zoqo-paper", PAIRS, 0), *shares]


def lora_jobs(ckpt: Path) -> list[dict[str, Any]]:
    """Adapters of rank 8 beside every linear layer: on grids of 8 and 4 bits, in floats, by gradients; scales."""
    lora = ("move=lora",)
    jobs = []
    part = 4  # about 1,000 forwards
    bases = {"TinyStories": ckpt, "demo": Path("src/forq/demo/checkpoint")}
    for seed in range(3):
        for name, base in bases.items():
            jobs += [
                tune(f"{name}: zoqo, 8 bits", base, "zoqo", VOTES // part, seed, *lora, "lora.bits=8"),
                tune(f"{name}: zoqo, 4 bits", base, "zoqo", VOTES // part, seed, *lora, "lora.bits=4"),
                tune(f"{name}: qzo, float adapters", base, "qzo-slopes", POPULATION // part, seed, *lora),
                tune(f"{name}: qzo-shared, float adapters", base, "qzo-shared", POPULATION // part, seed, *lora),
                tune(f"{name}: qzo-lora, adapters then scales", base, "qzo-lora", POPULATION // part, seed),
                backprop(f"{name}: back-propagation, 100 steps", base, "lora", 3e-3, 100, seed),
                tune(f"{name}: qzo, no adapters, scales", base, "qzo-slopes", POPULATION // part, seed),
            ]
    return jobs


def command(words: Sequence[str], folders: dict[str, Path]) -> str:
    """The words as a line for a shell, with ``$NAME`` in place of the folder of that name."""

    def shown(word: str) -> str:
        # The innermost folder first: one may lie in the other.
        for name, folder in sorted(folders.items(), key=lambda item: -len(str(item[1]))):
            if word == str(folder) or word.startswith(f"{folder}/"):
                rest = word.removeprefix(str(folder))
                return f'"${name}"' + (shlex.quote(rest) if rest else "")
        return shlex.quote(word)

    return " ".join(["python", *map(shown, words)])


def complete(words: Sequence[str], data: Path, work: Path) -> list[str]:
    """The words of a job with its data and, for `forq tune`, a folder that is named by all the others."""
    found = [*words, "--data", str(data / "tinyshakespeare" / "input.txt")]
    if words[1] == "forq":
        said = command(found, {"FORQ_DATA": data, "WORK": work})
        found += ["--out", str(work / hashlib.sha256(said.encode()).hexdigest()[:16]), "--json"]
    return found


def run(job: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    words = complete(job["words"], data, work)
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, check=False)
    line = command(words, {"FORQ_DATA": data, "WORK": work})
    row = {"method": job["method"], "seed": job["seed"], "command": line}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return row | {"error": said[-1] if said else f"exit code {done.returncode}, nothing said"}
    said = json.loads(done.stdout)
    scores = {s: {when: said[s][when]["loss"] for when in ("before", "after")} for s in ("validation", "test")}
    spent = said["forwards"] if "forwards" in said else 3 * said["steps"]  # back-propagation
    return row | scores | {"forwards": spent, "seconds": said["seconds"], "peak_mb": said["peak_mb"]}


def spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    out = [
        "| method | seeds | forwards | validation after | test before | test after | seconds | peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in methods:
        mine = [row for row in rows if row["method"] == method]
        good = [row for row in mine if "error" not in row]
        if not good:
            out.append(f"| {method} | 0 of {len(mine)} | | {mine[0]['error'][:80]} | | | | |")
            continue
        seeds = str(len(good)) if len(good) == len(mine) else f"{len(good)} of {len(mine)}"
        out.append(
            f"| {method} | {seeds} | {good[0]['forwards']:,} | {spread([r['validation']['after'] for r in good])} | "
            f"{good[0]['test']['before']:.3f} | {spread([r['test']['after'] for r in good])} | "
            f"{statistics.median(r['seconds'] for r in good):.0f} | {max(r['peak_mb'] for r in good)} |"
        )
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--what", choices=("main", "ddc", "grid", "lora"), default="main")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    names = {"main": "shakespeare", "ddc": "ddc", "grid": "grid", "lora": "lora"}
    if args.action == "table":
        for name in names.values():
            found = ROOT / "results" / f"{name}.jsonl"
            if found.exists():
                print(f"## {name}\n\n" + table([json.loads(row) for row in found.read_text().splitlines()]))
        return
    args.data, args.work = args.data.resolve(), args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    floating, ckpt = args.data / "tinystories-656k", args.work / "tinystories-656k-gptq4-g64"
    if not ckpt.exists():
        words = [sys.executable, "-m", "forq", "quantize", str(floating), str(ckpt), "--group-size", "64"]
        subprocess.run(words, check=True)
    target = ROOT / "results" / f"{names[args.what]}.jsonl"
    target.parent.mkdir(exist_ok=True)
    rows = [json.loads(row) for row in target.read_text().splitlines()] if target.exists() else []
    done = {(row["method"], row["seed"]) for row in rows}  # a stopped experiment goes on where it was
    batches = [lambda: {"ddc": ddc_jobs, "grid": grid_jobs, "lora": lora_jobs}[args.what](ckpt)]
    if args.what == "main":
        batches = [lambda: main_jobs(ckpt, floating), lambda: tuned_jobs(ckpt, floating, rows)]
    with target.open("a", encoding="utf-8") as file, ThreadPoolExecutor(args.jobs) as pool:
        for batch in batches:
            jobs = [job for job in batch() if (job["method"], job["seed"]) not in done]
            for row in pool.map(lambda job: run(job, args.data, args.work), jobs):
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()


if __name__ == "__main__":
    main()
