"""Run in .venv-formats: transformers and torchao load folders; prints loss, logits, and what each layer's weight is.

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
from transformers import AutoModelForCausalLM


def exact(weight: torch.Tensor) -> torch.Tensor:
    """float64 (out, in) of a weight from the buffers the library holds; it rounds its own to the model's dtype."""
    rows, columns = weight.qdata.shape
    shape = (weight.scale.shape[0], rows // weight.scale.shape[0], weight.scale.shape[1], -1)
    blocks = weight.qdata.double().reshape(shape)
    zero = weight.zero_point if weight.zero_point is not None else torch.zeros_like(weight.scale)
    return ((blocks - zero.double()[:, None, :, None]) * weight.scale.double()[:, None, :, None]).view(rows, columns)


def measure(folder: Path, ids: torch.Tensor) -> dict[str, object]:
    """Mean token loss, and the logits at every row's last position."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", device_map="cpu").eval()
    layers = {name: layer.weight for name, layer in model.named_modules() if hasattr(layer, "weight")}
    weights = {name: exact(weight) for name, weight in layers.items() if hasattr(weight, "qdata")}
    torch.save(weights, folder / "weights.pt")
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
