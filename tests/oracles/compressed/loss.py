"""Run in .venv-formats: the library loads folders; prints its loss and logits on given tokens, keeps its matrices.

loss.py FOLDER … < '[[token, …], …]'   →   a line of JSON for each, after the word RESULT

The matrices, as dense as the library makes them at its first forward, go to FOLDER.dense.safetensors. The model is in
float32. Where the configuration rounds inputs the library does so; ``loss_weights`` and ``logits_weights`` are without.
transformers 5.23 cannot load packed zero points (it makes room for unpacked ones): such files, and files of several
config groups, are decompressed by compressed-tensors itself, layer by layer, into a plain model.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM


def answer(model: torch.nn.Module, ids: torch.Tensor) -> tuple[float, list[list[float]]]:
    """Mean token loss, and the logits at every row's last position."""
    with torch.no_grad():
        logits = model(ids).logits.float()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    return loss.item(), logits[:, -1].tolist()


def through_transformers(folder: str) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu").eval()


def by_layers(folder: str) -> torch.nn.Module:
    """A plain model whose quantized layers are as the library decompresses them."""
    config = AutoConfig.from_pretrained(folder)
    how = QuantizationConfig.model_validate(config.quantization_config)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config).float().eval()
    apply_quantization_config(model, how)
    tensors = {k: v for file in sorted(Path(folder).glob("*.safetensors")) for k, v in load_file(file).items()}
    left = {}
    for name, module in model.named_modules():
        own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.rpartition(".")[0] == name}
        scheme = getattr(module, "quantization_scheme", None)
        if "weight_scale" in own:
            own["weight_scale"] = own["weight_scale"].float()  # else the product is rounded to the dtype of the scales
            own = BaseCompressor.get_value_from_registry(scheme.format).decompress(own, scheme)
        left |= {f"{name}.{kind}": own[kind].float() for kind in ("weight", "bias") if kind in own}
    missing, unexpected = model.load_state_dict(left, strict=False)
    wrong = [name for name in missing if name.endswith((".weight", ".bias"))]
    assert not unexpected and set(wrong) <= {"lm_head.weight"}, (wrong, unexpected)
    for module in model.modules():
        module.quantization_enabled = False  # the matrices are what they will be
    model.tie_weights()
    return model


def measure(folder: str, ids: torch.Tensor) -> dict[str, object]:
    try:
        model, way = through_transformers(folder), "transformers"
    except RuntimeError:
        model, way = by_layers(folder), "compressed-tensors"
    loss, logits = answer(model, ids)
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "quantization_scheme")}
    save_file({name: m.weight.detach().contiguous() for name, m in layers.items()}, f"{folder}.dense.safetensors")
    for module in layers.values():
        # What is left of the scheme is the rounding of inputs.
        module.quantization_enabled = False
    alone = answer(model, ids)
    said = {"folder": folder, "through": way, "loss": loss, "logits": logits}
    return said | {"loss_weights": alone[0], "logits_weights": alone[1]}


def main() -> None:
    ids = torch.tensor(json.load(sys.stdin))
    for folder in sys.argv[1:]:
        print("RESULT " + json.dumps(measure(folder, ids)), flush=True)


if __name__ == "__main__":
    main()
