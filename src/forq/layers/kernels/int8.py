"""Integer arithmetic: activations are rounded to 8 bits in every call, integers multiplied, scales applied outside.

    y[t, o] = scale[o] · s·Σ_i xq[t, i] · (code[o, i] − 128),      x ≈ s·xq

by torch's dynamically quantized linear operator (engines x86 and fbgemm). The row's scale multiplies the result and is
not packed, so that a probe repacks nothing. Rounding x costs 1 to 2 % of a layer's output. Losses are still float32,
but of a slightly different network, so this kernel is used only on request.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from forq.errors import ConfigError
from forq.layers.weight import QuantWeight, Weight

_MIDDLE = 128
# One bit of the activations stays unused: processors without VNNI add pairs of products in 16 bits, and saturate.
_REDUCE_RANGE = True


def unfit(weight: Weight, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this kernel cannot compute a layer, or None where it can."""
    if not isinstance(weight, QuantWeight) or weight.levels is not None or weight.zeros.is_floating_point():
        return "codes that count, with whole zero points, are needed"
    if weight.bits != 8 or weight.groups != 1 or weight.group_of is not None:
        return f"8 bits and one scale a row are needed, found {weight.bits} bits, {weight.groups} groups"
    if weight.zero != _MIDDLE:
        return f"zero points of {_MIDDLE} (symmetric codes) are needed, found others"
    if device.type != "cpu" or dtype != torch.float32:
        return f"float32 on a CPU is needed, found {dtype} on {device.type}"
    if torch.backends.quantized.engine not in ("x86", "fbgemm"):
        return f"torch's engine x86 or fbgemm is needed, found {torch.backends.quantized.engine}"
    return None


class Kernel:
    """``x · wᵀ`` for one layer, with the codes in the operator's own packing.

    Args:
        weight: the integers; the caller may free them afterwards.

    Raises:
        ConfigError: this kernel cannot compute the layer.
    """

    __slots__ = ("_columns", "_packed", "_rows")

    name = "int8"

    def __init__(self, weight: QuantWeight) -> None:
        why = unfit(weight, weight.codes.device, torch.float32)
        if why is not None:
            raise ConfigError(f"activations int8: {why}")
        self._rows, self._columns = weight.out_features, weight.in_features
        codes = (weight.codes.to(torch.int16) - _MIDDLE).to(torch.int8)
        with warnings.catch_warnings():
            # torch has deprecated quantized tensors; the operator takes its weight in no other form.
            warnings.simplefilter("ignore")
            whole = torch._make_per_tensor_quantized_tensor(codes, 1.0, 0)
            self._packed: torch.ScriptObject = torch.ops.quantized.linear_prepack(whole, None)

    def __deepcopy__(self, memo: dict[int, object]) -> Kernel:
        """For a copy of the model: the packed weight never changes and is shared."""
        other = object.__new__(Kernel)
        other._rows, other._columns, other._packed = self._rows, self._columns, self._packed
        return other

    def matmul(self, x: Tensor, scales: Tensor) -> Tensor:
        """(..., in) float32 → (..., out) float32, with scales float32 (1, out)."""
        flat = x.reshape(-1, self._columns)
        if not len(flat):
            return x.new_empty(*x.shape[:-1], self._rows)
        y: Tensor = torch.ops.quantized.linear_dynamic(flat, self._packed, _REDUCE_RANGE)
        return y.mul_(scales).view(*x.shape[:-1], self._rows)
