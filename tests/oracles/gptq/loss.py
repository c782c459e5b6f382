"""Run in .venv-gptq: the library loads folders; prints its loss and logits on given tokens.

loss.py FOLDER … FOLDER::ADAPTER … < '[[token, …], …]'   →   a line of JSON for each, after the word RESULT
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Compiling the kernel takes a minute and changes nothing for a model this small.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AwqConfig, GPTQConfig


def measure(folder: str, ids: torch.Tensor) -> dict[str, object]:
    """Mean token loss, and the logits at every row's last position."""
    base, _, adapter = folder.partition("::")
    # The plain kernels: the others repack, and some compute in less than float32.
    kinds = {"gptq": GPTQConfig(bits=4, backend="gptq_torch"), "awq": AwqConfig(bits=4, backend="torch_awq")}
    how = kinds[AutoConfig.from_pretrained(base).quantization_config["quant_method"]]
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=how, dtype=torch.float32, device_map="cpu")
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    with torch.no_grad():
        logits = model(ids).logits.float()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    return {"loss": loss.item(), "logits": logits[:, -1].tolist()}


def main() -> None:
    ids = torch.tensor(json.load(sys.stdin))
    for folder in sys.argv[1:]:
        # The library talks on stdout; the answers are the lines that begin with the mark.
        print("RESULT " + json.dumps({"folder": folder, **measure(folder, ids)}), flush=True)


if __name__ == "__main__":
    main()
