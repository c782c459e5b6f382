"""Run in .venv-formats: hqq loads folders; prints loss, logits, and what each layer's weight is.

loss.py FOLDER … < '[[token, …], …]'   →   a line of JSON for each, after the word RESULT; FOLDER/weights.pt beside it
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch
from hqq.core.quantize import HQQLinear
from hqq.models.hf.base import AutoHQQHFModel


def exact(layer: HQQLinear) -> torch.Tensor:
    """float64 (out, in), by the library's own way from its buffers."""
    codes = layer.unpack(dtype=torch.float64)
    if layer.meta["nbits"] == 3:  # rows the words are filled up with
        rows = layer.meta["group_size"] if layer.meta["axis"] == 0 else layer.meta["scale"].numel()
        codes = codes[:rows]
    return ((codes - layer.meta["zero"].double()) * layer.meta["scale"].double()).reshape(layer.meta["shape"])


def measure(folder: Path, ids: torch.Tensor) -> dict[str, object]:
    """Mean token loss, and the logits at every row's last position."""
    model = AutoHQQHFModel.from_quantized(str(folder), compute_dtype=torch.float32, device="cpu").eval()
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, HQQLinear)}
    torch.save({name: exact(layer) for name, layer in layers.items()}, folder / "weights.pt")
    with torch.no_grad():
        logits = model(ids).logits.float()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    return {"loss": loss.item(), "logits": logits[:, -1].tolist()}


def main() -> None:
    ids = torch.tensor(json.load(sys.stdin))
    for folder in sys.argv[1:]:
        print("RESULT " + json.dumps({"folder": folder, **measure(Path(folder), ids)}), flush=True)


if __name__ == "__main__":
    main()
