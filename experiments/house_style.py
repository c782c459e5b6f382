"""The story of examples/house_style, in numbers: what the tuned file answers through llama.cpp, and what else changed.

    python experiments/house_style.py run --plain $FORQ_DATA/tinyshakespeare --seed 0      # 1, 2
    python experiments/house_style.py table                                                  # as Markdown

A row of results/house-style.jsonl is one seed: `forq tune smollm2` in a process of its own (an interrupted one goes on
where it was), then the 30 unseen messages answered by llama.cpp with the published file and with the tuned one
(`.venv-llamacpp`, made by `make .venv-llamacpp/.done`), and counted by examples/house_style/form.py. The runs stay in
build/house-style.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "house_style"
TARGET = ROOT / "results" / "house-style.jsonl"
WORK = ROOT / "build" / "house-style"
LLAMA = ROOT / ".venv-llamacpp" / "bin" / "python"
STEPS = 20

sys.path.insert(0, str(EXAMPLE))

Row = dict[str, Any]


def tuned(seed: int, plain: str) -> tuple[Row, str, float]:
    """The result of a seed's run, the command, and the processor seconds of this session."""
    words = ["tune", "smollm2", "--task", "completion", "--data", str(EXAMPLE.relative_to(ROOT) / "rows")]
    words += ["--set", "task.batch_rows=8", "--steps", str(STEPS), "--eval-every", "4", "--seed", str(seed)]
    words += ["--watch", f"plain=text:{plain}", "--set", "watch.plain.rows=8"]
    words += ["--out", str(WORK.relative_to(ROOT) / f"seed-{seed}"), "--resume"]
    before = _processor()
    subprocess.run([sys.executable, "-m", "forq", *words], cwd=ROOT, check=True)
    result = json.loads((WORK / f"seed-{seed}" / "result.json").read_text(encoding="utf-8"))
    return result, shlex.join(["forq", *words]).replace(plain, "$PLAIN"), _processor() - before


def answered(model: Path, out: Path) -> Row:
    """What llama.cpp answers to the unseen messages, counted; asked once."""
    from form import counted

    if not out.exists():
        words = [str(LLAMA), str(EXAMPLE / "answers.py"), str(model), str(EXAMPLE / "rows" / "test.jsonl")]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        new = out.with_suffix(".new")
        new.write_text(done.stdout, encoding="utf-8")
        new.replace(out)
    return asdict(counted(out))


def run(seed: int, plain: str) -> Row:
    """The row of a seed."""
    from forq.checkpoints.installed import find

    WORK.mkdir(parents=True, exist_ok=True)
    base = find("smollm2")
    assert base is not None
    result, command, seconds = tuned(seed, plain)
    (saved,) = (WORK / f"seed-{seed}" / "checkpoint").glob("*.gguf")
    before = answered(base, WORK / "before.jsonl")
    after = answered(saved, WORK / f"seed-{seed}" / "after.jsonl")
    return {
        "seed": seed,
        "label": "small real",
        "forwards": result["forwards"],
        "step": result["step"],
        "validation": {when: round(result["validation"][when]["loss"], 5) for when in ("before", "after")},
        "test": {when: round(result["test"][when]["loss"], 5) for when in ("before", "after")},
        "plain": {
            when: {name: round(result["watch"]["plain"][when][name], 5) for name in ("loss", "kl")}
            for when in ("before", "after")
        },
        "llama.cpp": {"before": before, "after": after},
        "processor_seconds": round(seconds),
        "peak_mb": result["peak_mb"],
        "command": command,
    }


def recorded() -> list[Row]:
    return [json.loads(line) for line in TARGET.read_text().splitlines()] if TARGET.exists() else []


def table(rows: list[Row]) -> str:
    """Every seed, and the means."""
    out = [
        "| seed | forwards | test loss before | after | in the form before | after | fields right before | after "
        "| plain text: loss before | after | KL to the base |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    cells = [_cells(row) for row in sorted(rows, key=lambda row: row["seed"])]
    out += [
        "| " + " | ".join([str(row["seed"]), *map(_text, own)]) + " |" for row, own in zip(rows, cells, strict=True)
    ]
    if len(rows) > 1:
        out.append(
            "| mean | " + " | ".join(_text(statistics.fmean(column)) for column in zip(*cells, strict=True)) + " |"
        )
    return "\n".join(out)


def _cells(row: Row) -> list[float]:
    asked = row["llama.cpp"]
    shares = [
        asked[when][name] / (asked[when]["rows"] * (4 if name == "fields" else 1))
        for name in ("in_form", "fields")
        for when in ("before", "after")
    ]
    plain = row["plain"]
    losses = [row["test"]["before"], row["test"]["after"]]
    return [row["forwards"], *losses, *shares, plain["before"]["loss"], plain["after"]["loss"], plain["after"]["kl"]]


def _text(number: float) -> str:
    return f"{number:,.0f}" if number > 20 else f"{number:.3f}"


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", default="tinyshakespeare", help="plain text to watch; also looked for in $FORQ_DATA")
    args = parser.parse_args()
    rows = recorded()
    if args.what == "run" and args.seed not in [row["seed"] for row in rows]:
        rows = sorted([*rows, run(args.seed, args.plain)], key=lambda row: row["seed"])
        new = TARGET.with_suffix(".new")
        new.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        new.replace(TARGET)
    print(table(rows))


if __name__ == "__main__":
    main()
