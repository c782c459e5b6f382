"""Run in .venv-formats: transformers and aqlm load folders; prints loss, logits, and what each layer's weight is.

loss.py FOLDER … < '[[token, …], …]'   →   a line of JSON for each, after the word RESULT; FOLDER/weights.pt beside it
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Threads of its numba kernel (aqlm 1.1.7, numba 0.68.1) overwrite each other's sums: one file gave six losses.
os.environ["NUMBA_NUM_THREADS"] = "1"

import torch
from aqlm import QuantizedLinear
from aqlm.utils import _dequantize_weight, unpack_int_data
from transformers import AutoConfig, AutoModelForCausalLM


def measure(folder: Path, ids: torch.Tensor) -> dict[str, object]:
    """Mean token loss, and the logits at every row's last position."""
    config = AutoConfig.from_pretrained(folder)
    # Released files name weights here; transformers 5.23 compares with names of modules and would turn the head, too.
    config.quantization_config["linear_weights_not_to_quantize"] = [
        name.removesuffix(".weight") for name in config.quantization_config["linear_weights_not_to_quantize"]
    ]
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    weights = {}
    for name, layer in model.named_modules():
        if isinstance(layer, QuantizedLinear):
            codes = unpack_int_data(layer.codes, layer.nbits_per_codebook)
            weights[name] = _dequantize_weight(codes, layer.codebooks.double(), layer.scales.double())
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
