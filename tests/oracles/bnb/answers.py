"""Run in .venv-formats: bitsandbytes loads folders, and says what it sees in them.

answers.py OUT FOLDER … < '[[token, …], …]'   →   a line of JSON for each, after the word RESULT:
losses and logits as the library computes them, and with its dequantised matrices in float32;
the matrices themselves in OUT/NAME.safetensors
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import bitsandbytes as bnb
import generic  # noqa: F401
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


def matrix(module: torch.nn.Module) -> torch.Tensor:
    """A layer's matrix by the library's own functions, float32."""
    weight = module.weight
    if isinstance(module, bnb.nn.Linear4bit):
        weight.quant_state.dtype = torch.float32
        return bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
    scales = weight.SCB if module.state.SCB is None else module.state.SCB
    codes = weight.data if module.state.CB is None else module.state.CB
    return bnb.functional.int8_vectorwise_dequant(codes, scales)


@torch.no_grad()
def measure(folder: str, ids: torch.Tensor, out: Path) -> dict[str, object]:
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu").eval()
    answers: dict[str, object] = {"folder": folder}
    answers["native"] = _scored(model, ids)
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.float32).eval()
    found = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)):
            found[name] = matrix(module).contiguous()
            plain = torch.nn.Linear(*reversed(found[name].shape), bias=module.bias is not None)
            plain.weight.copy_(found[name])
            if module.bias is not None:
                plain.bias.copy_(module.bias)
            model.set_submodule(name, plain)
    save_file(found, out / f"{Path(folder).name}.safetensors")
    # The library refuses `model.float()`, and some of its loaders pass over the dtype asked for.
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.float() if tensor.is_floating_point() else tensor.data
    answers["plain"] = _scored(model, ids)
    return answers


def _scored(model: torch.nn.Module, ids: torch.Tensor) -> dict[str, object]:
    logits = model(ids).logits.float()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    return {"loss": loss.item(), "logits": logits[:, -1].tolist()}


def main() -> None:
    ids = torch.tensor(json.load(sys.stdin))
    for folder in sys.argv[2:]:
        print("RESULT " + json.dumps(measure(folder, ids, Path(sys.argv[1]))), flush=True)


if __name__ == "__main__":
    main()
