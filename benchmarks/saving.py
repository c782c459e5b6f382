"""What a save takes beside the steps before it: the peak of each, above the imports, in a process of its own.

    python -m benchmarks.saving CHECKPOINT --text FILE [--move scales --move codes] [--steps 2] [--out FILE]

A run of a few steps on short rows of the first kilobytes of a text. The kernel's high-water mark is read after the
steps, set back, and read again after ``Run.finish`` (Linux only). What the steps hold when they end is what the save
begins with, so the two peaks compare. Beside them stands what ``forq inspect`` predicts for as many tokens.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

_TEXT_BYTES = 6000
_RECIPES = {"scales": "qzo-slopes", "codes": "zoqo"}

_RUN = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from forq.inspection.process import peak_bytes as peak
from forq.models.load import load
from forq.runs.run import Run
from forq.runs.config import complete
from forq.runs.open_task import open_task
from forq.runs.config import TaskConfig
from transformers.models.llama import modeling_llama
def back():
    Path("/proc/self/clear_refs").write_text("5")
checkpoint, data, out, move, recipe, steps, tokens = sys.argv[1:]
back(); imports = peak()
model = load(checkpoint, "cpu"); loaded = peak()
task = TaskConfig(name="text", data=data, tokens_per_probe=int(tokens))
sets = [f"move={move}", f"task.max_length={min(128, int(tokens) // 2)}"]
config = complete(recipe, sets, steps=int(steps), eval_every=int(steps), checkpoint=checkpoint, device="cpu", task=task)
run = Run.begin(Path(out), config, model, open_task(config.task, model, 0))
opened = peak(); back()
for _ in run.events(): pass
stepped = peak()
back(); run.finish()
saved = peak()
from forq.inspection.memory import summary
predicted = summary(model.checkpoint, int(tokens)).peak_bytes or 0
print(json.dumps({"imports": imports, "loaded": loaded - imports, "opened": opened - imports,
                  "steps": stepped - imports, "save": saved - imports, "predicted": predicted - imports}))
"""


def peaks(checkpoint: str, text: Path, move: str, steps: int, tokens: int) -> dict[str, float]:
    """Peaks above the imports in MB: of loading, opening tokenizer and data, steps and save; and the predicted one."""
    with tempfile.TemporaryDirectory() as where:
        data = Path(where) / "text.txt"
        data.write_bytes(text.read_bytes()[:_TEXT_BYTES])
        words = [
            sys.executable,
            "-c",
            _RUN,
            checkpoint,
            str(data),
            f"{where}/run",
            move,
            _RECIPES[move],
            str(steps),
            str(tokens),
        ]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    return {name: round(value / 1e6, 1) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--move", action="append", choices=tuple(_RECIPES))
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64, help="of a batch; rows have half as many, 128 at most")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = {move: peaks(args.checkpoint, args.text, move, args.steps, args.tokens) for move in args.move or _RECIPES}
    for move, row in found.items():
        print(f"{move}: " + ", ".join(f"{name} {value:g} MB" for name, value in row.items()))
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
