"""Run in .venv-formats: transformers loads files, gguf-py dequantises them; prints losses, logits, tokens, matrices.

answers.py FILE … < '{"ids": [[token, …], …], "text": "…"}'   →   a line of JSON for each, after the word RESULT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    asked = json.load(sys.stdin)
    ids = torch.tensor(asked["ids"])
    for file in map(Path, sys.argv[1:]):
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
        with torch.no_grad():
            logits = model(ids).logits.float()
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        matrices = {}
        for tensor in gguf.GGUFReader(file).tensors:
            if tensor.tensor_type not in (0, 1, 30) and len(tensor.shape) == 2:
                matrices[tensor.name] = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        np.savez(file.with_suffix(".npz"), **matrices)
        answer = {"file": str(file), "loss": loss.item(), "logits": logits[:, -1].tolist()}
        print("RESULT " + json.dumps(answer | {"tokens": tokenizer(asked["text"])["input_ids"]}), flush=True)


if __name__ == "__main__":
    main()
