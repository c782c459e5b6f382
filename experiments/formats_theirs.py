"""Run in .venv-formats: a format's own library quantizes a float checkpoint, as experiments/formats.py asks it to.

python experiments/formats_theirs.py hqq|torchao|torchao-int8|nf4|nf4-nested|fp4|int8 FLOAT OUT
"""

from __future__ import annotations

import os
import sys
from functools import partial

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


def bitsandbytes(kind: str, floating: str, out: str) -> None:
    """Blocks of 64, ``nested`` with double quantization; int8 by row."""
    from transformers import BitsAndBytesConfig

    four = {"load_in_4bit": True, "bnb_4bit_quant_type": kind[:3], "bnb_4bit_use_double_quant": "nested" in kind}
    how = BitsAndBytesConfig(**({"load_in_8bit": True} if kind == "int8" else four))
    model = AutoModelForCausalLM.from_pretrained(
        floating, quantization_config=how, dtype=torch.float32, device_map="cpu"
    )
    model.save_pretrained(out)


MAKERS = {"hqq": hqq, "torchao": torchao, "torchao-int8": torchao_int8}
MAKERS |= {kind: partial(bitsandbytes, kind) for kind in ("nf4", "nf4-nested", "fp4", "int8")}

if __name__ == "__main__":
    MAKERS[sys.argv[1]](sys.argv[2], sys.argv[3])
