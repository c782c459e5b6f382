"""`--task classify` beside the presets on the same rows, and a head of one's own, tuned on another domain's rows.

    python experiments/classify.py run --data $FORQ_DATA --work FOLDER --minilm FOLDER --smollm2 FILE   # all
    python experiments/classify.py run … --only minilm-sst2:plain:0                                      # or some of it
    python experiments/classify.py recount --work FOLDER                                                 # of `predict`
    python experiments/classify.py table                                                                 # as Markdown

MINILM is all-MiniLM-L6-v2 as transformers reads it, SMOLLM2 the published Q4_1 file. Every row of
results/classify.jsonl is one `forq tune` in a process of its own, its command beside its numbers. A way is

- `preset`: the task `sst2` or `cb` itself;
- `words`: `classify` with the preset's prompt, words and label sentences, and the words' prior taken out;
- `raw`: the same, and the prior left in, which is the preset's own objective on a decoder;
- `plain`: `classify` with the labels as they are (negative and positive; entailment, …) and the default prompt.

All ways of a seed have the rows of the preset. `recount` has `forq predict` answer the test rows of
every run that still lies in the folder, counts the right labels in its file and puts both shares into
results/classify-recount.jsonl. In `head-cb` MiniLM gets a head by back-propagation on RTE (pairs, three
epochs), is quantized, and is tuned on CommitmentBank's pairs with the labels entailment and not_entailment.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from learning import quantized
from shakespeare import command, spread

from forq.tasks import cb, rte, sst2
from forq.tasks.kinds.examples import Example
from forq.tasks.kinds.preset import Limits, Preset

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "results" / "classify.jsonl"
SEEDS = (0, 1, 2)
PRESETS: Mapping[str, Preset] = {"sst2": sst2.preset, "cb": cb.preset}
NAMES = {"sst2": ("negative", "positive"), "cb": ("entailment", "contradiction", "neutral")}
PROMPTS = {
    "sst2": "{text} It was",
    "cb": 'Suppose {text} Can we infer that "{second}"? Yes, No, or Maybe?\\n',
}
LIMITS = {"smollm2": Limits(1000, 160, None), "minilm": Limits(1000, 500, None), "head": Limits(1000, 500, None)}
TRIAL = Limits(64, 32, 32)
PROBLEMS: Mapping[str, tuple[str, str, int]] = {
    "minilm-sst2": ("minilm", "sst2", 800),
    "minilm-cb": ("minilm", "cb", 800),
    "smollm2-sst2": ("smollm2", "sst2", 150),
    "smollm2-cb": ("smollm2", "cb", 150),
    "head-cb": ("head", "cb", 800),
}
"""Name: model, data set, forward passes."""
HEAD = {"batch": 16, "lr": 5e-5, "max_length": 128}

Row = dict[str, Any]


def ways(problem: str) -> tuple[str, ...]:
    """The ways a problem is run; an encoder has no prior, so `raw` would be `words` again."""
    model = PROBLEMS[problem][0]
    return ("head",) if model == "head" else ("preset", "words", "plain", *(("raw",) if model == "smollm2" else ()))


def rows(folder: Path, data: Path, name: str, limits: Limits, seed: int, names: tuple[str, ...]) -> Path:
    """The preset's rows of a seed as files, with one or two texts and the names of the labels."""
    examples, _ = PRESETS[name].splits(data / name, seed, limits)
    folder.mkdir(parents=True, exist_ok=True)
    for split, some in examples.items():
        lines = [json.dumps(fields(example, names), ensure_ascii=False) + "\n" for example in some]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def fields(example: Example, names: tuple[str, ...]) -> dict[str, str]:
    texts = example.plain or (example.text,)
    return {**dict(zip(("text", "second"), texts, strict=False)), "label": names[example.label]}


def labels(file: Path, name: str) -> Path:
    """The preset's words and label sentences, as a user would give them."""
    classes = PRESETS[name].classes
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["label", "word", "sentence"])
        writer.writerows(zip(NAMES[name], map(str.strip, classes.words), classes.sentences, strict=True))
    return file


def words(problem: str, way: str, seed: int, data: Path, work: Path, limits: Limits) -> list[str]:
    """Task, data and options."""
    model, name, _ = PROBLEMS[problem]
    if way == "preset":
        made = ["--task", name, "--data", str(data / name)]
        given = {split: count for split, count in limits._asdict().items() if count is not None}
        return made + [word for split, count in given.items() for word in ("--set", f"task.{split}_rows={count}")]
    # The head of RTE has two classes: contradiction and neutral are one.
    names = ("entailment", "not_entailment", "not_entailment") if way == "head" else NAMES[name]
    folder = rows(work / f"rows-{problem}-{way}-{seed}", data, name, limits, seed, names)
    made = ["--task", "classify", "--data", str(folder), "--set", "task.test_rows=100000"]
    made += ["--set", "task.second=second"] if name == "cb" else []
    if way in ("words", "raw"):
        made += ["--set", f"task.labels={labels(folder / 'labels' / 'labels.csv', name)}"]
        made += ["--set", f"task.prompt={PROMPTS[name]}"] if model == "smollm2" or name == "cb" else []
    return made + (["--set", "task.prior=false"] if way == "raw" else [])


def head(floating: Path, data: Path, out: Path, limits: Limits, epochs: int) -> Path:
    """MiniLM with a classification head, trained by back-propagation on RTE's pairs; made once."""
    import transformers

    if out.exists():
        return out
    torch.manual_seed(0)
    names = ("entailment", "not_entailment")
    tokenizer = transformers.AutoTokenizer.from_pretrained(floating)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        floating, num_labels=2, id2label=dict(enumerate(names)), label2id={name: n for n, name in enumerate(names)}
    )
    train = rte.preset.splits(data / "rte", 0, limits).examples["train"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=HEAD["lr"])
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(train)).split(int(HEAD["batch"]))
        total = 0.0
        for places in order:
            some = [train[int(place)] for place in places]
            first, second = ([example.plain[side] for example in some] for side in (0, 1))
            inputs = tokenizer(
                first, second, truncation=True, max_length=int(HEAD["max_length"]), padding=True, return_tensors="pt"
            )
            loss = model(**inputs, labels=torch.tensor([example.label for example in some])).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += float(loss)
        print(f"epoch {epoch + 1}: loss {total / len(order):.3f}", file=sys.stderr)
    model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def run(job: str, args: argparse.Namespace) -> Row:
    """One row: the process and its numbers, or its last word."""
    problem, way, seed = job.split(":")
    model, _, forwards = PROBLEMS[problem]
    forwards, limits = (30, TRIAL) if args.trial else (forwards, LIMITS[model])
    of_rte, epochs = (TRIAL, 1) if args.trial else (Limits(None, 300, None), 3)
    data, work = args.data, args.work
    checkpoints = {
        "minilm": lambda: quantized(args.minilm, work / "minilm-gptq4-g64"),
        "smollm2": lambda: args.smollm2,
        "head": lambda: quantized(
            head(args.minilm, data, work / "minilm-rte", of_rte, epochs), work / "minilm-rte-gptq4-g64"
        ),
    }
    out = work / job.replace(":", "-")
    shutil.rmtree(out, ignore_errors=True)  # of a process that was killed
    full = ["-m", "forq", "tune", str(checkpoints[model]()), *words(problem, way, int(seed), data, work, limits)]
    full += ["--set", "task.batch_rows=16", "--forwards", str(forwards), "--seed", seed, "--out", str(out), "--json"]
    done = subprocess.run([sys.executable, *full], capture_output=True, text=True, cwd=ROOT, check=False)
    row: Row = {"problem": problem, "way": way, "seed": int(seed), "label": "small real"}
    line = command(full, {"FORQ_DATA": data, "WORK": work, "SMOLLM2": args.smollm2 or work})
    row["command"] = line.replace(f"task.labels={work}", "task.labels=$WORK")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return row | {"error": said[-1] if said else f"exit code {done.returncode}, nothing said"}
    found = json.loads(done.stdout)
    scores = {split: {when: _numbers(found[split][when]) for when in ("before", "after")} for split in _SPLITS}
    return row | {"forwards": found["forwards"], **scores, "confusion": found["confusion"], "seconds": found["seconds"]}


def recount(row: Row, work: Path) -> Row | None:
    """The accuracy in `forq predict`'s file beside the run's; None for a preset, which has no files of rows."""
    job = f"{row['problem']}-{row['way']}-{row['seed']}"
    test = work / f"rows-{job}" / "test.jsonl"
    if row["way"] == "preset" or not (work / job).is_dir() or not test.is_file():
        return None
    out = work / f"predicted-{job}.jsonl"
    words = ["-m", "forq", "predict", str(work / job), "--data", str(test), "--out", str(out), "--overwrite"]
    subprocess.run([sys.executable, *words], check=True, stdout=sys.stderr, cwd=ROOT)
    right = [json.loads(line)["label"] for line in test.read_text(encoding="utf-8").splitlines()]
    found = [json.loads(line)["label"] for line in out.read_text(encoding="utf-8").splitlines()]
    share = sum(a == b for a, b in zip(right, found, strict=True)) / len(right)
    return {key: row[key] for key in ("problem", "way", "seed")} | {
        "rows": len(right),
        "test": row["test"]["after"]["accuracy"],
        "recounted": round(share, 5),
    }


_SPLITS = ("validation", "test")


def _numbers(score: Mapping[str, float]) -> dict[str, float]:
    return {name: round(score[name], 5) for name in ("accuracy", "macro_f1", "loss") if name in score}


def recorded(target: Path) -> list[Row]:
    return [json.loads(line) for line in target.read_text().splitlines()] if target.exists() else []


def table(found: list[Row]) -> str:
    """Mean ± standard deviation over the seeds."""
    out = [
        "| problem | way | seeds | forwards | test accuracy before | after | macro F1 before | after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for problem in PROBLEMS:
        for way in ways(problem):
            mine = [row for row in found if (row["problem"], row["way"]) == (problem, way) and "error" not in row]
            if not mine:
                continue
            cells = [problem, way, str(len(mine)), f"{mine[0]['forwards']:,}"]
            for name in ("accuracy", "macro_f1"):
                for when in ("before", "after"):
                    values = [row["test"][when].get(name) for row in mine]
                    cells.append("–" if None in values else spread([100 * value for value in values]))
            out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("run", "recount", "table"))
    for name in ("data", "work", "minilm", "smollm2"):
        parser.add_argument(f"--{name}", type=lambda text: Path(text).resolve())
    parser.add_argument("--results", type=Path, default=TARGET, help="where rows are kept")
    parser.add_argument("--trial", action="store_true", help="few rows and steps, to see that it runs")
    parser.add_argument("--only", action="append", default=[], help="problem:way:seed; all that is missing by default")
    args = parser.parse_args()
    if args.action == "run":
        if not (args.data and args.work):
            parser.error("run needs --data and --work")
        args.work.mkdir(parents=True, exist_ok=True)
        everything = [f"{problem}:{way}:{seed}" for seed in SEEDS for problem in PROBLEMS for way in ways(problem)]
        for job in args.only or everything:
            if job in {f"{row['problem']}:{row['way']}:{row['seed']}" for row in recorded(args.results)}:
                continue
            print(job, file=sys.stderr)
            row = run(job, args)
            with args.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    if args.action == "recount":
        target = args.results.with_name("classify-recount.jsonl")
        done = {(row["problem"], row["way"], row["seed"]) for row in recorded(target)}
        for row in recorded(args.results):
            if (row["problem"], row["way"], row["seed"]) not in done and (found := recount(row, args.work)) is not None:
                with target.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
        return
    print(table(recorded(args.results)))


if __name__ == "__main__":
    main()
