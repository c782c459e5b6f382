"""Adapt the small pretrained pipeline to a shifted style, forward-only and by back-propagation of the same scales.

    python experiments/diffusion/adapt.py run --data $FORQ_DATA --work WORK --style thick   # after pretrain.py
    python experiments/diffusion/adapt.py table                                           # as Markdown
    python experiments/diffusion/adapt.py picture --work WORK                             # results/diffusion.png

Training pictures (600) are digits of a sheet the model was not pretrained on, validation (32) of another, test (128) of
MNIST's test set, each shifted alike. `qzo` is the recipe as it is, its best on validation; back-propagation trains the
same scales with AdamW (rate of four by validation, seed 0) on as many steps with the same batches, a backward counted
as two forwards. Loss: flow matching on the test pictures, four fixed levels each. Distance: unbiased squared MMD (cubic
kernel, as KID) of 1,000 drawn digits, 100 of a class, from 5,000 held-out ones of the style, in the 200 features before
the last layer of the data folder's MNIST network; `read` is the share of drawn digits that network reads as their
caption, `ink` their mean grey value.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import sd3_gguf
import torch
from digits import STYLES, test_digits, train_digits
from PIL import Image, ImageDraw
from pipeline import CAPTIONS, ROOM
from torch import Tensor, nn
from torch.nn.functional import relu

import forq
from forq.models.convert.onload import quantized
from forq.models.diffusion.encoders import Encoders
from forq.models.load import load
from forq.runs import journal
from forq.tasks.images.pictures import grid, pixels
from forq.tasks.kinds.features import distance
from forq.tasks.text_to_image import open as open_task

sys.path.insert(0, str(Path(__file__).parents[1]))
from attack_victims import mnist_cnn
from twins import Scaled, swap

TARGET = Path(__file__).parents[2] / "results" / "diffusion.jsonl"
BATCH, DRAWN, SHOWN, EULER, RATES = 16, 1000, 8, 12, (3e-3, 1e-2, 3e-2, 1e-1)
GGUF = ("q4_0", "q8_0")
OURS: dict[str, tuple[str, dict[str, Any], int]] = {
    "qzo": ("qzo-slopes", {}, BATCH),  # the default until 2026-11-30
    "qzo, decay linear": ("qzo-slopes", {"rule": {"decay": "linear"}}, BATCH),
    "qzo-shared": ("qzo-shared", {}, BATCH),
    "qzo-shared, 64 rows": ("qzo-shared", {}, 4 * BATCH),
    "qzo-shared, 32 directions": ("qzo-shared", {"estimator": {"directions": 32}}, BATCH),
}
"""Recipe, settings and rows of a batch. The two of four times the forward passes say what bounds a step."""

USUAL = ("qzo", "qzo, decay linear", "qzo-shared")
"""What is run where ``--only`` names nothing."""
CELL = ("style", "form", "method", "steps", "seed", "rate")


def folder(data: Path, work: Path, style: str) -> Path:
    out = work / f"data-{style}"
    if out.is_dir():
        return out
    sources = {"train": train_digits(data, [18]), "validation": train_digits(data, [19]), "test": test_digits(data)}
    for split, count in (("train", 600), ("validation", 32), ("test", 128)):
        images, labels = (part[:count] for part in sources[split])
        where = work / f".{style}" / split
        where.mkdir(parents=True, exist_ok=True)
        for n, image in enumerate(STYLES[style](images)):
            Image.fromarray((image * 255).round().byte().numpy()).save(where / f"{n:04}.png")
        rows = [{"file_name": f"{n:04}.png", "text": CAPTIONS[int(label)]} for n, label in enumerate(labels)]
        (where / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (work / f".{style}").replace(out)
    return out


class Judge:
    def __init__(self, data: Path, style: str) -> None:
        self.net = mnist_cnn(data)
        self.real = self.features(STYLES[style](test_digits(data)[0][1000:6000]))

    def features(self, images: Tensor) -> Tensor:
        dense, self.net.dense[2] = self.net.dense[2], nn.Identity()
        try:
            with torch.inference_mode():
                return relu(self.net(images[:, None]))
        finally:
            self.net.dense[2] = dense

    def distance(self, images: Tensor) -> float:
        return distance(self.features(images), self.real).value

    def read(self, images: Tensor) -> float:
        with torch.inference_mode():
            found = self.net(images[:, None]).argmax(dim=1)
        return float((found == torch.arange(len(images)) // (len(images) // 10)).double().mean())


def score(model: nn.Module, task: Any, judge: Judge, picture: Path) -> dict[str, Any]:
    captions = [caption for caption in CAPTIONS for _ in range(DRAWN // 10)]
    drawn = task.encoded.draw(model, captions, 1000, EULER, 28)
    shown = drawn.unflatten(0, (10, -1))[:, :SHOWN].flatten(0, 1)
    grid(shown, SHOWN).save(picture)
    grey = drawn.mean(dim=1)
    return {
        **task.evaluate(model, "test").numbers(),
        "validation": task.evaluate(model, "validation").loss,
        "distance": judge.distance(grey),
        "read": judge.read(grey),
        "ink": float(grey.mean()),
    }


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("action", choices=("run", "table", "picture"))
    args.add_argument("--data", type=Path)
    args.add_argument("--work", type=Path)
    args.add_argument("--style", choices=tuple(STYLES), default="thick")
    args.add_argument("--form", default="nf4")
    args.add_argument("--steps", type=int, default=200)
    args.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args.add_argument("--only", choices=(*OURS, "backprop"), help="one method alone, to run several beside each other")
    told = args.parse_args()
    if told.action == "table":
        print(table())
        return
    if told.action == "picture":
        side_by_side(told.work / "grids")
        return
    done = {tuple(row[name] for name in CELL) for row in rows()}
    source, base = told.work / "pipeline", told.work / f"base-{told.form}"
    if not base.is_dir():
        sd3_gguf.write(source, base, told.form.upper()) if told.form in GGUF else quantized(source, told.form, base)
    where, judge = folder(told.data, told.work, told.style), Judge(told.data, told.style)
    grids = told.work / "grids"
    grids.mkdir(exist_ok=True)

    def opened(model: Any, seed: int, rows: int = BATCH) -> Any:
        encoded = Encoders(model.checkpoint, told.work / "cache", torch.device("cpu"), pixels)
        settings: dict[str, Any] = {"resolution": 28, "batch_rows": rows, "text_tokens": ROOM, "samples": 0}
        return open_task(where, encoded, seed=seed, micro_batch=64, **settings)

    def put(method: str, seed: int, rate: float | None, found: dict[str, Any], seconds: float) -> None:
        row = {
            "style": told.style,
            "form": told.form,
            "method": method,
            "seed": seed,
            "rate": rate,
            "steps": trained(method),
        }
        with TARGET.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, **found, "seconds": round(seconds, 1)}) + "\n")
        print({**row, **found}, flush=True)

    def wanted(method: str, seed: int, rate: float | None = None) -> bool:
        return (told.style, told.form, method, trained(method), seed, rate) not in done

    def trained(method: str) -> int:
        return told.steps if method in (*OURS, "backprop") else 0

    for method, path in (("float, before", source), ("before", base)):
        if wanted(method, 0):
            model = load(path)
            picture = grids / f"{told.style}-{told.form}-{method}.png"
            put(method, 0, None, score(model, opened(model, 0), judge, picture) | {"forwards": 0}, 0.0)
    ours = [(name, seed) for name in (USUAL if told.only is None else OURS) for seed in told.seeds]
    for name, seed in ours if told.only in (None, *OURS) else ():
        if told.only in (None, name) and wanted(name, seed):
            model, began = load(base), time.perf_counter()
            mark = f"{told.style}-{told.form}-{name.replace(', ', '-').replace(' ', '-')}-{told.steps}-{seed}"
            out, picture = told.work / f"run-{mark}", grids / f"{mark}.png"
            shutil.rmtree(out, ignore_errors=True)
            recipe, own, count = OURS[name]
            settings: dict[str, Any] = {"seed": seed, "eval_every": max(1, told.steps // 10), "settings": own}
            run = forq.tune(model, opened(model, seed, count), recipe=recipe, steps=told.steps, out=out, **settings)
            spent = time.perf_counter() - began
            tuned = load(out / "checkpoint")
            assert run.best is not None
            more = {"best": run.best.trained, "forwards": journal.read(run.journal).forwards}
            put(name, seed, None, score(tuned, opened(tuned, seed), judge, picture) | more, spent)
    for seed in told.seeds if told.only in (None, "backprop") else ():
        for rate in RATES if seed == 0 else (best_rate(told.style, told.form, told.steps),):
            if wanted("backprop", seed, rate):
                backprop(base, opened, seed, rate, told.steps, judge, grids, told.style, told.form, put)


def backprop(
    base: Path,
    opened: Any,
    seed: int,
    rate: float,
    steps: int,
    judge: Judge,
    grids: Path,
    style: str,
    form: str,
    put: Any,
) -> None:
    model: Any = load(base)
    task, began = opened(model, seed), time.perf_counter()
    trained = swap(model, Scaled)
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        task.loss_tensor(model, task.batch(step)).backward()
        optimizer.step()
        schedule.step()
    spent = time.perf_counter() - began
    picture = grids / f"{style}-{form}-backprop-{steps}-{seed}-{rate}.png"
    put("backprop", seed, rate, score(model, task, judge, picture) | {"forwards": 3 * steps}, spent)


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in TARGET.read_text(encoding="utf-8").splitlines()] if TARGET.is_file() else []


def best_rate(style: str, form: str, steps: int) -> float:
    wanted = (style, form, "backprop", steps, 0)
    tried = [row for row in rows() if tuple(row[name] for name in CELL[:-1]) == wanted]
    return float(min(tried, key=lambda row: row["validation"])["rate"])


def side_by_side(grids: Path) -> None:
    """What is drawn of the same noise by four models: ten classes, a row each."""
    best = best_rate("thick", "nf4", 200)
    shown = {
        "NF4, before": "thick-nf4-before",
        "qzo, 200 steps": "thick-nf4-qzo-200-0",
        "qzo, decay linear, 1,000 steps": "thick-nf4-qzo-decay-linear-1000-0",
        "back-propagation, 200 steps": f"thick-nf4-backprop-200-0-{best}",
    }
    images = [Image.open(grids / f"{name}.png").convert("L") for name in shown.values()]
    sides = [image.resize((3 * image.width // 2, 3 * image.height // 2)) for image in images]
    step = sides[0].width + 16
    whole = Image.new("L", (step * len(sides) - 16, sides[0].height + 20), 255)
    for place, (title, side) in enumerate(zip(shown, sides, strict=True)):
        whole.paste(side, (place * step, 20))
        ImageDraw.Draw(whole).text((place * step + 2, 4), title, fill=0)
    whole.save(TARGET.with_suffix(".png"), optimize=True)


def table() -> str:
    lines = [
        "| style | format | method | steps | seeds | forwards | loss | q1 | q4 | distance | read | ink |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows():
        if row["method"] != "backprop" or row["rate"] == best_rate(row["style"], row["form"], row["steps"]):
            groups.setdefault(tuple(row[name] for name in CELL[:-2]), []).append(row)
    for key, found in groups.items():
        said = []
        for name, digits in (("loss", 4), ("loss q1", 3), ("loss q4", 3), ("distance", 1), ("read", 2), ("ink", 3)):
            values = [row[name] for row in found]
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            said.append(f"{statistics.fmean(values):.{digits}f}{spread}")
        spent = found[0]["forwards"]
        lines.append(f"| {' | '.join(map(str, key))} | {len(found)} | {spent:,} | {' | '.join(said)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
