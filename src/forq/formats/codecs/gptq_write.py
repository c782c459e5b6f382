"""What GPTQ stores for a layer and says in config.json, for those who write such checkpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from forq.errors import FormatError
from forq.formats.codecs.gptq_settings import KEPT, ZERO_OFFSETS
from forq.formats.codecs.gptq_words import multiple, pack_codes, pack_zeros
from forq.layers.weight import QuantWeight


def pack(weight: QuantWeight, checkpoint_format: str = "gptq") -> dict[str, Tensor]:
    """The tensors GPTQ stores for a layer beside its scales and bias: qweight, qzeros, g_idx.

    Raises:
        FormatError: inputs or outputs do not fill 32-bit words, or the version is unknown.
    """
    if checkpoint_format not in ZERO_OFFSETS:
        raise FormatError(f"expected checkpoint_format among {', '.join(ZERO_OFFSETS)}, found {checkpoint_format!r}")
    step = multiple(weight.bits)
    if weight.in_features % step or weight.out_features % step:
        raise FormatError(
            f"expected inputs and outputs in multiples of {step} for GPTQ's 32-bit words at {weight.bits} bits, found "
            f"{weight.in_features} and {weight.out_features}; leave this layer in float"
        )
    plain = torch.arange(weight.in_features, dtype=torch.int32) // weight.group_size
    return {
        "qweight": pack_codes(weight.codes, weight.bits),
        "qzeros": pack_zeros(weight.zeros, ZERO_OFFSETS[checkpoint_format], weight.bits),
        "g_idx": plain if weight.group_of is None else weight.group_of,
    }


def quantization_config(
    bits: int, group_size: int, sym: bool = True, checkpoint_format: str = "gptq", desc_act: bool = False
) -> dict[str, object]:
    """The ``quantization_config`` of a checkpoint whose layers :func:`pack` made.

    Args:
        group_size: inputs that share a scale; −1 is a whole row.
        sym: whether all zero points are the middle.
        desc_act: whether g_idx of a layer is in another order than that of the inputs; vLLM reads it only then.
    """
    how = {"quant_method": "gptq", "bits": bits, "group_size": group_size, "sym": sym, "desc_act": desc_act}
    return how | {"checkpoint_format": checkpoint_format}


def kept_in_float(quantized: Sequence[str], kept: Sequence[str]) -> dict[str, object]:
    """Further settings where single layers of the blocks stay in float, for both loaders.

    gptqmodel and vLLM read ``dynamic``, whose rules with a minus leave layers alone; transformers, through optimum,
    reads the ends of the names that *are* quantized.
    """
    rules: dict[str, dict[str, object]] = {f"{KEPT}^{re.escape(name)}$": {} for name in kept}
    return {"dynamic": rules, "modules_in_block_to_quantize": [list(quantized)]}
