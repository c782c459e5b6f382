"""Result (d): the library GPTQ files belong to loads a tuned checkpoint and computes our loss.

make test-oracles                                           # builds its environment once
python experiments/library_loss.py CKPT [CKPT::ADAPTER …] --data FILE --windows 32
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from forq.models.load import load
from forq.runs.config import TaskConfig
from forq.runs.open_task import open_task

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--windows", type=int, default=32)
    args = parser.parse_args()
    pairs = [text.partition("::") for text in args.checkpoints]
    first: Any = load(pairs[0][0], "cpu")
    options = {"test_rows": args.windows, "batch_rows": args.windows}
    task = open_task(TaskConfig(name="text", data=args.data, options=options), first, 0)
    ids = next(iter(task.batches("test"))).input_ids
    oracle = [str(ROOT / ".venv-gptq/bin/python"), str(ROOT / "tests/oracles/gptq/loss.py")]
    folders = [str(Path(base).resolve()) + (f"::{Path(own).resolve()}" if own else "") for base, _, own in pairs]
    done = subprocess.run(
        [*oracle, *folders], input=json.dumps(ids.tolist()), capture_output=True, text=True, check=True
    )
    rows = [json.loads(row[7:]) for row in done.stdout.splitlines() if row.startswith("RESULT ")]
    for (base, _, own), theirs in zip(pairs, rows, strict=True):
        with torch.inference_mode():
            model: Any = load(base, "cpu", adapter=own or None)
            ours = task.loss_tensor(model, next(iter(task.batches("test")))).item()
        gap = abs(ours - theirs["loss"])
        print(
            json.dumps(
                {"checkpoint": Path(own or base).name, "ours": ours, "library": theirs["loss"], "difference": gap}
            )
        )


if __name__ == "__main__":
    main()
