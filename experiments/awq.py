"""Run in .venv-gptq (tests/oracles/gptq/setup.sh): the library searches AWQ's scales and clips and writes the file.

    .venv-gptq/bin/python experiments/awq.py FLOAT_CHECKPOINT CALIBRATION_TEXT OUT

4 bits, group 64, asymmetric, layout gemm, float16; calibrated on the first 64 windows of 256 tokens of the text.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

WINDOWS, TOKENS = 64, 256


def main() -> None:
    floating, text, out = sys.argv[1:]
    how = QuantizeConfig(bits=4, group_size=64, quant_method="awq", format="gemm", sym=False, offload_to_disk=False)
    model = GPTQModel.load(floating, how, dtype=torch.float16)
    # Far more characters than the tokens take.
    ids = model.tokenizer(Path(text).read_text(encoding="utf-8")[: 16 * WINDOWS * TOKENS])["input_ids"]
    rows = [ids[TOKENS * place : TOKENS * (place + 1)] for place in range(WINDOWS)]
    calibration = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
    model.quantize(calibration, batch_size=4, backend=BACKEND.AWQ_TORCH)
    model.save(out)


if __name__ == "__main__":
    main()
