"""What bitsandbytes stores for a matrix at 4 bits, and says of it in config.json: for those who write such files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from forq.formats.codecs.bnb_state import state_name
from forq.layers.normal_float import Kind, packed, table


def filed(
    ranks: Tensor, absmax: Tensor, shape: tuple[int, ...], kind: Kind, blocksize: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The tensors bitsandbytes stores for a matrix, by the ends of their names.

    Args:
        ranks, absmax: as :func:`forq.layers.normal_float.quantise` gives them.
        dtype: what the library is to dequantise to.
    """
    said = {"quant_type": kind, "blocksize": blocksize, "dtype": str(dtype).removeprefix("torch.")}
    return {
        "": packed(table(kind).code_of[ranks.int()]),
        ".absmax": absmax,
        ".quant_map": table(kind).filed.clone(),
        state_name("", kind): _as_bytes({**said, "shape": list(shape)}),
    }


def plan(
    shape: tuple[int, int], kind: Kind, blocksize: int, dtype: torch.dtype
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Dtypes and shapes of :func:`filed`'s tensors, before there is one."""
    values = math.prod(shape)
    none = torch.empty(0, dtype=torch.uint8)
    text = filed(none, torch.empty(0), shape, kind, blocksize, dtype)[state_name("", kind)]
    return {
        "": (torch.uint8, (-(-values // 2), 1)),
        ".absmax": (torch.float32, (-(-values // blocksize),)),
        ".quant_map": (torch.float32, (16,)),
        state_name("", kind): (torch.uint8, tuple(text.shape)),
    }


def config(kind: Kind, dtype: torch.dtype, skipped: Sequence[str] | None = None) -> dict[str, object]:
    """The ``quantization_config`` of such a checkpoint.

    Args:
        dtype: what the library is to compute in.
        skipped: linear layers that are not quantized.
    """
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": False,
        "bnb_4bit_compute_dtype": str(dtype).removeprefix("torch."),
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": None if skipped is None else list(skipped),
    }


def _as_bytes(said: Mapping[str, object]) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(said).encode()), dtype=torch.uint8)
