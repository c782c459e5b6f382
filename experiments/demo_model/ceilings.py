"""How much can scale tuning gain on a demo task, and how much of that do forward passes alone reach?

For one text this prints one JSON line with the held-out loss (nats per token) and next-token accuracy of
the 4-bit demo model at three points: as quantized; after back-propagation through its group scales alone
(the *ceiling*: relative multipliers, Adam); after a plain two-point forward-only search over the same
multipliers (SPSA, Rademacher noise). The task of the demo was chosen by these numbers. The forward-only
search here is a yardstick of thirty lines that uses nothing of forq's engine, on purpose.

    python ceilings.py --model FLOAT_FOLDER --text python-source --group-size 64
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sysconfig
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from forq.demo.corpus import SKIPPED_FOLDERS, python_source, upper_docs

TEXTS = ("python-source", "python-raw", "docs-upper", "docs")


class ScaledLinear(nn.Module):
    """A linear layer with fixed 4-bit codes (round to nearest, symmetric) and one multiplier per group."""

    codes: Tensor
    scales: Tensor

    def __init__(self, layer: nn.Linear, group_size: int) -> None:
        super().__init__()
        groups = layer.weight.detach().float().reshape(layer.out_features, -1, group_size)
        scales = (groups.abs().amax(-1, keepdim=True) / 7.5).half().float()
        self.register_buffer("codes", (groups / scales).round().clamp(-8, 7))
        self.register_buffer("scales", scales)
        self.shift = nn.Parameter(torch.zeros_like(scales))  # multiplier = 1 + shift
        self.noise: Tensor | None = None  # what the forward-only search adds for one evaluation

    def forward(self, x: Tensor) -> Tensor:
        shift = self.shift if self.noise is None else self.shift + self.noise
        return linear(x, (self.codes * (self.scales * (1.0 + shift))).flatten(1))


def quantize(model: nn.Module, group_size: int) -> list[ScaledLinear]:
    """Replace every linear layer of the decoder in place; embeddings and norms stay as they are."""
    replaced: list[ScaledLinear] = []
    for parent in list(model.get_submodule("model.layers").modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                replaced.append(ScaledLinear(child, group_size))
                setattr(parent, name, replaced[-1])
    return replaced


def docs_text() -> tuple[str, str, str]:
    """Docstrings of the standard library, modules split 8 : 1 : 1: no change of domain, the control."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [p for p in sorted(root.rglob("*.py")) if not SKIPPED_FOLDERS & set(p.relative_to(root).parts)]
    random.Random(0).shuffle(files)
    parts: list[list[str]] = [[], [], []]
    for index, path in enumerate(files):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        found = [ast.get_docstring(n) for n in ast.walk(tree) if isinstance(n, kinds)]
        text = "\n\n".join(d for d in found if d)[:8_000]
        parts[(1, 2, 0, 0, 0, 0, 0, 0, 0, 0)[index % 10]].append(text)
    train, validation, test = ("\n\n".join(p) for p in parts)
    return train[:600_000], validation[:60_000], test[:60_000]


def raw_text() -> tuple[str, str, str]:
    """Source files as they are, comments and docstrings too, 8,000 characters from the middle of each."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [p for p in sorted(root.rglob("*.py")) if not SKIPPED_FOLDERS & set(p.relative_to(root).parts)]
    random.Random(0).shuffle(files)
    parts: list[list[str]] = [[], [], []]
    for index, path in enumerate(files):
        text = path.read_text(encoding="utf-8", errors="ignore")
        begin = max(0, len(text) // 2 - 4_000)
        parts[(1, 2, 0, 0, 0, 0, 0, 0, 0, 0)[index % 10]].append(text[begin : begin + 8_000])
    train, validation, test = ("\n\n".join(p) for p in parts)
    return train[:600_000], validation[:60_000], test[:60_000]


def texts(name: str) -> tuple[str, str, str]:
    """Training, validation and test text of a candidate task."""
    if name == "python-source":
        return python_source(600_000)
    if name == "docs-upper":
        return upper_docs(400_000)
    return raw_text() if name == "python-raw" else docs_text()


def batch_of(ids: Tensor, generator: torch.Generator, rows: int, length: int) -> Tensor:
    """`rows` windows of `length` + 1 tokens at random places."""
    begins = torch.randint(0, len(ids) - length - 1, (rows,), generator=generator).tolist()
    return torch.stack([ids[b : b + length + 1] for b in begins])


def loss_of(model: Any, x: Tensor) -> Tensor:
    """Mean next-token loss of the windows `x`, nats per token."""
    return cross_entropy(model(input_ids=x[:, :-1]).logits.flatten(0, 1), x[:, 1:].flatten())


@torch.no_grad()
def score(model: Any, ids: Tensor, length: int) -> tuple[float, float]:
    """Loss (nats per token) and accuracy of the best guess on all of `ids`, `length` tokens at a time."""
    rows = ids[: (len(ids) - 1) // length * length + 1]
    x, y = rows[:-1].reshape(-1, length), rows[1:].reshape(-1, length)
    summed, right = 0.0, 0
    for a, b in zip(torch.split(x, 16), torch.split(y, 16), strict=True):
        logits = model(input_ids=a).logits
        summed += float(cross_entropy(logits.flatten(0, 1), b.flatten(), reduction="sum"))
        right += int((logits.argmax(-1) == b).sum())
    return summed / y.numel(), right / y.numel()


def back_propagate(model: Any, layers: list[ScaledLinear], ids: Tensor, args: argparse.Namespace) -> None:
    """The ceiling: Adam on the multipliers, learning rate falling to zero over the run."""
    optimizer = torch.optim.Adam([layer.shift for layer in layers], lr=args.ceiling_lr)
    generator = torch.Generator().manual_seed(1)
    for step in range(args.ceiling_steps):
        optimizer.param_groups[0]["lr"] = args.ceiling_lr * (1 - step / args.ceiling_steps)
        loss = loss_of(model, batch_of(ids, generator, args.rows, args.length))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def search_forward(
    model: Any, layers: list[ScaledLinear], data: tuple[Tensor, Tensor], args: argparse.Namespace
) -> list[tuple[int, float, float]]:
    """Two-point SPSA; returns (steps, validation loss, seconds without validation) along the way."""
    ids, validation = data
    generator = torch.Generator().manual_seed(2)
    curve = [(0, round(score(model, validation, args.length)[0], 4), 0.0)]
    spent = 0.0
    for step in range(1, args.forward_steps + 1):
        began = time.perf_counter()
        x = batch_of(ids, generator, args.rows, args.length)
        signs = [
            torch.randint(0, 2, layer.shift.shape, generator=generator).float().mul_(2).sub_(1) for layer in layers
        ]
        values = []
        for eps in (args.eps, -args.eps):
            for layer, sign in zip(layers, signs, strict=True):
                layer.noise = eps * sign
            values.append(float(loss_of(model, x)))
        slope = (values[0] - values[1]) / (2 * args.eps)
        rate = args.forward_lr * min(1.0, 2.0 * (1.0 - (step - 1) / args.forward_steps))  # halfway on, to zero
        for layer, sign in zip(layers, signs, strict=True):
            layer.noise = None
            layer.shift.sub_(sign, alpha=rate * slope)
        spent += time.perf_counter() - began
        if step % args.report == 0 or step == args.forward_steps:
            curve.append((step, round(score(model, validation, args.length)[0], 4), round(spent, 1)))
            print(curve[-1], round(slope, 3), flush=True)
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description="Ceiling and forward-only gain of scale tuning on one text.")
    parser.add_argument("--model", type=Path, required=True, help="float model folder, tokenizer included")
    parser.add_argument("--text", choices=TEXTS, default="python-source")
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128, help="tokens per row")
    parser.add_argument("--ceiling-steps", type=int, default=150)
    parser.add_argument("--ceiling-lr", type=float, default=3e-2)
    parser.add_argument("--forward-steps", type=int, default=0)
    parser.add_argument("--forward-lr", type=float, default=5e-2)
    parser.add_argument("--eps", type=float, default=3e-2, help="relative perturbation of every scale")
    parser.add_argument("--report", type=int, default=250, help="steps between validations of the forward-only run")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval().requires_grad_(False)
    parts = texts(args.text)
    train, validation, test = (torch.tensor(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in parts)
    result: dict[str, Any] = {"text": args.text, "group_size": args.group_size, "train_tokens": len(train)}
    result["characters_per_token"] = round(len(parts[0]) / len(train), 2)
    result["float"] = score(model, test, args.length)
    layers = quantize(model, args.group_size)
    result["scales"] = sum(layer.shift.numel() for layer in layers)
    result["before"] = score(model, test, args.length)
    if args.ceiling_steps:
        back_propagate(model, layers, train, args)
        result["ceiling"] = score(model, test, args.length)
    for layer in layers:
        layer.shift.requires_grad_(False).zero_()
    if args.forward_steps:
        result["curve"] = search_forward(model, layers, (train, validation), args)
        result["forward_only"] = score(model, test, args.length)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
