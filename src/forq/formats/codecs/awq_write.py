"""What AWQ stores for a layer and says in config.json, for those who write such checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from forq.errors import FormatError
from forq.formats.codecs.awq_settings import BITS
from forq.formats.codecs.awq_words import EIGHT, pack_codes, pack_words
from forq.layers.weight import QuantWeight


def pack(weight: QuantWeight) -> dict[str, Tensor]:
    """The tensors AWQ stores for a layer beside its scales (groups, out) and bias: qweight and qzeros.

    Raises:
        FormatError: the weight is none AWQ can say.
    """
    if weight.bits != BITS or weight.group_of is not None or weight.levels is not None:
        order = "" if weight.group_of is None else " in act-order"
        raise FormatError(f"expected codes of 4 bits in consecutive groups for AWQ, found {weight.bits} bits{order}")
    columns, rows = weight.in_features, weight.out_features
    if rows % EIGHT or columns % weight.group_size:
        raise FormatError(
            f"expected outputs in multiples of 8 and whole groups of inputs for AWQ, found {rows} outputs and "
            f"{columns} inputs in groups of {weight.group_size}; leave this layer in float"
        )
    low, high = (int(value) for value in weight.zeros.aminmax())
    if weight.zeros.is_floating_point() or low < 0 or high > 15:
        raise FormatError(f"expected whole zero points from 0 to 15 for AWQ, found {low} to {high}")
    return {"qweight": pack_codes(weight.codes), "qzeros": pack_words(weight.zeros)}


def quantization_config(group_size: int, left: Sequence[str] = ()) -> dict[str, object]:
    """The ``quantization_config`` of a checkpoint whose layers :func:`pack` made.

    Args:
        group_size: inputs that share a scale; −1 is a whole row.
        left: names, or ends of names, of linear layers that stay in float.
    """
    how = {"quant_method": "awq", "bits": BITS, "group_size": group_size, "zero_point": True, "version": "gemm"}
    return how | {"modules_to_not_convert": list(left) or None}
