"""What compressed-tensors stores for a layer and says in config.json, for those who write such checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from forq.errors import FormatError
from forq.formats.codecs.compressed_schemes import PACKED, WHOLE
from forq.formats.codecs.compressed_words import bytes_of_codes, pack_codes, pack_zeros, signed_zeros
from forq.layers.weight import QuantWeight


def pack(weight: QuantWeight, sym: bool | None = None, layout: str = PACKED) -> dict[str, Tensor]:
    """The tensors compressed-tensors stores for a layer beside its scales and bias.

    Args:
        sym: leave the zero points out, which must be 2^(bits − 1); None: if they are. All layers of a config group
            must agree.
        layout: ``pack-quantized`` or ``int-quantized``.

    Raises:
        FormatError: the format cannot hold this weight.
    """
    bits, middle, top = weight.bits, 1 << weight.bits - 1, (1 << weight.bits) - 1
    if bits not in (2, 4, 8) or (layout == WHOLE and bits != 8) or weight.levels is not None:
        raise FormatError(f"expected whole codes of 2, 4 or 8 bits (8 for {WHOLE}) for {layout}, found {bits} bits")
    if weight.group_of is not None:
        raise FormatError("expected consecutive groups, found act-order, which compressed-tensors no longer knows")
    sym = weight.zero == middle if sym is None else sym
    low, high = (int(value) for value in weight.zeros.aminmax())
    if weight.zeros.is_floating_point() or low < 0 or high > top or (sym and (low, high) != (middle, middle)):
        wanted = str(middle) if sym else f"0 to {top}"
        raise FormatError(f"expected whole zero points of {wanted} for compressed-tensors, found {low} to {high}")
    if layout == WHOLE:
        tensors = {"weight": bytes_of_codes(weight.codes)}
        return tensors if sym else tensors | {"weight_zero_point": signed_zeros(weight.zeros, bits)}
    shape = torch.tensor([weight.out_features, weight.in_features])
    tensors = {"weight_packed": pack_codes(weight.codes), "weight_shape": shape}
    return tensors if sym else tensors | {"weight_zero_point": pack_zeros(weight.zeros, bits)}


def quantization_config(bits: int, group_size: int, sym: bool = False, left: Sequence[str] = ()) -> dict[str, object]:
    """The ``quantization_config`` of a checkpoint whose layers :func:`pack` made as ``pack-quantized``.

    Args:
        group_size: inputs that share a scale; −1 is a whole row.
        sym: whether the zero points are left out.
        left: ends of names of linear layers that stay in float.
    """
    weights = {"num_bits": bits, "type": "int", "symmetric": sym, "dynamic": False}
    weights |= {
        "strategy": "channel" if group_size == -1 else "group",
        "group_size": None if group_size == -1 else group_size,
    }
    group: dict[str, object] = {"targets": ["Linear"], "weights": weights, "format": PACKED}
    group |= {"input_activations": None, "output_activations": None}
    how = {"quant_method": "compressed-tensors", "format": PACKED, "quantization_status": "compressed"}
    return how | {"config_groups": {"group_0": group}, "ignore": [f"re:.*{name}$" for name in left]}
