"""Ceilings by back-propagation: the same scales, LoRA, or all of a float model, on the same batches as `forq tune`.

Writes one JSON line a run to stdout: scores before and after, seconds, peak memory. With ``--eval-every`` it keeps the
best on validation, as `forq tune` does, and tells its course. Not a part of forq: this is what forq does without,
measured so that its tables are honest.

    python experiments/backprop.py CKPT --data FILE --what scales --lr 3e-3 --steps 1333 --seed 0
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from forq.inspection.process import peak_bytes
from forq.layers.kernels.reference import dequantise
from forq.layers.linear import QuantLinear
from forq.models.load import load
from forq.runs.config import TaskConfig
from forq.runs.open_task import open_task


class Differentiable(nn.Module):
    """A quantized layer whose scales get a gradient: scale₀ · (1 + θ), codes fixed."""

    def __init__(self, layer: QuantLinear) -> None:
        super().__init__()
        ones = torch.ones_like(layer.scales)
        self.register_buffer("centred", dequantise(layer.weight, ones))
        self.register_buffer("start", layer.scales.clone())
        self.theta = nn.Parameter(torch.zeros_like(layer.scales))
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.centred.shape
        scales = (self.start * (1 + self.theta)).t().unsqueeze(2)
        weight = (self.centred.view(rows, scales.shape[1], -1) * scales).view(rows, columns)
        return linear(x, weight, self.bias)


class Adapted(nn.Module):
    """LoRA (Hu et al., arXiv 2106.09685) of rank r beside a frozen quantized layer; B starts at zero."""

    def __init__(self, layer: QuantLinear, rank: int, alpha: float) -> None:
        super().__init__()
        self.register_buffer("weight", dequantise(layer.weight, layer.scales))
        self.bias, self.factor = layer.bias, alpha / rank
        self.a = nn.Parameter(torch.empty(rank, layer.in_features))
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias) + linear(linear(x, self.a), self.b) * self.factor


def make_trainable(model: Any, what: str) -> list[nn.Parameter]:
    """Swap every quantized layer for its trainable twin; the parameters to train."""
    if what == "full":
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
    for name, layer in list(model.named_modules()):
        if isinstance(layer, QuantLinear):
            parent, _, child = name.rpartition(".")
            twin = Differentiable(layer) if what == "scales" else Adapted(layer, rank=8, alpha=16.0)
            setattr(model.get_submodule(parent), child, twin)
    found = [p for p in model.parameters() if p.requires_grad]
    if not found:
        raise SystemExit("nothing quantized to train")
    return found


class Best:
    """The parameters that validated best so far, and the course: forward passes, seconds and loss of every score."""

    def __init__(self, parameters: list[nn.Parameter], loss: float) -> None:
        self.parameters, self.loss = parameters, loss
        self.held = [p.detach().clone() for p in parameters]
        self.course: list[list[float]] = [[0, 0, round(loss, 4)]]

    def offer(self, step: int, seconds: float, loss: float) -> None:
        """A step of back-propagation is counted as three forward passes."""
        self.course.append([3 * step, round(seconds), round(loss, 4)])
        if loss < self.loss:
            self.loss = loss
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
    before = {split: task.evaluate(model, split).numbers() for split in ("validation", "test")}
    parameters = make_trainable(model, args.what)
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    best, began = Best(parameters, before["validation"]["loss"]), time.perf_counter()
    for step in range(args.steps):
        optimizer.zero_grad(set_to_none=True)
        task.loss_tensor(model, task.batch(step)).backward()
        optimizer.step()
        schedule.step()
        if args.eval_every and ((step + 1) % args.eval_every == 0 or step + 1 == args.steps):
            best.offer(step + 1, time.perf_counter() - began, task.evaluate(model, "validation").loss)
    if args.eval_every:
        best.restore()
    seconds = time.perf_counter() - began
    after = {split: task.evaluate(model, split).numbers() for split in ("validation", "test")}
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
