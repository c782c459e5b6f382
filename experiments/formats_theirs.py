"""Run in .venv-formats: a format's own library quantizes a float checkpoint, as experiments/formats.py asks it to.

python experiments/formats_theirs.py hqq|torchao|torchao-int8 FLOAT OUT
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch
from transformers import AutoModelForCausalLM


def hqq(floating: str, out: str) -> None:
    """4 bits, groups of 64 along the inputs."""
    from hqq.core.quantize import BaseQuantizeConfig
    from hqq.models.hf.base import AutoHQQHFModel

    model = AutoModelForCausalLM.from_pretrained(floating, dtype=torch.float16)
    how = BaseQuantizeConfig(nbits=4, group_size=64, axis=1)
    AutoHQQHFModel.quantize_model(model, quant_config=how, compute_dtype=torch.float16, device="cpu")
    AutoHQQHFModel.save_quantized(model, out)


def torchao(floating: str, out: str) -> None:
    """int4, groups of 64 along the inputs, zero points."""
    from torchao.quantization import IntxWeightOnlyConfig, MappingType
    from torchao.quantization.granularity import PerGroup

    size = PerGroup(64)
    _torchao(floating, out, IntxWeightOnlyConfig(torch.int4, size, mapping_type=MappingType.ASYMMETRIC))


def torchao_int8(floating: str, out: str) -> None:
    """int8, a scale a row."""
    from torchao.quantization import Int8WeightOnlyConfig

    _torchao(floating, out, Int8WeightOnlyConfig())


def _torchao(floating: str, out: str, settings: object) -> None:
    from transformers import TorchAoConfig

    how = TorchAoConfig(settings)
    model = AutoModelForCausalLM.from_pretrained(floating, quantization_config=how, dtype=torch.float32)
    model.save_pretrained(out)


if __name__ == "__main__":
    {"hqq": hqq, "torchao": torchao, "torchao-int8": torchao_int8}[sys.argv[1]](sys.argv[2], sys.argv[3])
