"""Ceilings by back-propagation: the same scales, LoRA, or all of a float model, on the same batches as `forq tune`.

Writes one JSON line a run to stdout: scores before and after, seconds, peak memory. With ``--eval-every`` it keeps the
best on validation, as `forq tune` does, and tells its course. Not a part of forq: this is what forq does without,
measured so that its tables are honest.

    python experiments/backprop.py CKPT --data FILE --what scales --lr 3e-3 --steps 1333 --seed 0
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from edge_ceiling import Dequantised
from torch import Tensor
from twins import Adapted, Scaled, swap

from forq.inspection.process import peak_bytes
from forq.layers.linear import QuantLinear
from forq.models.graph.network import GraphNetwork
from forq.models.load import load
from forq.runs.config import TaskConfig
from forq.runs.open_task import open_task
from forq.tasks import Score


def trainable(model: Any, what: str) -> tuple[Any, list[Tensor]]:
    """What is trained, and its parameters: the model with twins of its quantized layers, or a graph's layers in floats.

    Raises:
        SystemExit: all of a quantized model was asked for, or more than the scales of a graph.
    """
    if isinstance(model, GraphNetwork):
        if what != "scales":
            raise SystemExit(f"--what {what}: expected scales for an ONNX graph")
        net = Dequantised(Path(model.checkpoint.path))
        return net, net.factors
    if what != "full":
        return model, [*swap(model, Scaled if what == "scales" else Adapted)]
    if any(isinstance(module, QuantLinear) for module in model.modules()):
        raise SystemExit("--what full: expected a float checkpoint, found quantized layers")
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return model, list(model.parameters())


def scored(task: Any, trained: Any) -> dict[str, Any]:
    """The last scores. Those of a graph are its file's: it rounds activations, which its layers in floats do not."""
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(trained, Dequantised):
            written = Path(folder) / "tuned"
            trained.write(written)
            trained = load(next(written.glob("*.onnx")), device="cpu")
        return {split: task.evaluate(trained, split).numbers() for split in ("validation", "test")}


class Best:
    """The parameters that validated best so far, and the course: forward passes, seconds and loss of every score."""

    def __init__(self, parameters: list[Tensor], score: Score) -> None:
        self.parameters, self.score = parameters, score
        self.held = [p.detach().clone() for p in parameters]
        self.course: list[list[float]] = [[0, 0, round(score.loss, 4)]]

    def offer(self, step: int, seconds: float, score: Score) -> None:
        """A step of back-propagation is counted as three forward passes."""
        self.course.append([3 * step, round(seconds), round(score.loss, 4)])
        if score.better_than(self.score):
            self.score = score
            self.held = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def restore(self) -> None:
        for parameter, held in zip(self.parameters, self.held, strict=True):
            parameter.copy_(held)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--task", default="text")
    parser.add_argument("--data", required=True)
    parser.add_argument("--what", choices=("scales", "lora", "full"), default="scales")
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eval-every", type=int, default=0, help="0: only at the end")
    parser.add_argument("--option", action="append", default=[], help="task option, key=whole number")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    model: Any = load(args.checkpoint)
    options = {key: int(value) for key, value in (text.split("=") for text in args.option)}
    task = open_task(TaskConfig(name=args.task, data=args.data, options=options), model, args.seed)
    scores = {split: task.evaluate(model, split) for split in ("validation", "test")}
    before = {split: score.numbers() for split, score in scores.items()}
    trained, parameters = trainable(model, args.what)
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    best, began = Best(parameters, scores["validation"]), time.perf_counter()
    for step in range(args.steps):
        optimizer.zero_grad(set_to_none=True)
        task.loss_tensor(trained, task.batch(step)).backward()
        optimizer.step()
        schedule.step()
        if args.eval_every and ((step + 1) % args.eval_every == 0 or step + 1 == args.steps):
            best.offer(step + 1, time.perf_counter() - began, task.evaluate(trained, "validation"))
    if args.eval_every:
        best.restore()
    seconds = time.perf_counter() - began
    after = scored(task, trained)
    print(
        json.dumps(
            {
                "method": f"backprop {args.what}",
                "lr": args.lr,
                "steps": args.steps,
                "seed": args.seed,
                "trained": sum(p.numel() for p in parameters),
                **{split: {"before": before[split], "after": after[split]} for split in before},
                **({"course": best.course} if args.eval_every else {}),
                "seconds": round(seconds, 1),
                "peak_mb": peak_bytes() // 1_000_000,
            }
        )
    )


if __name__ == "__main__":
    main()
