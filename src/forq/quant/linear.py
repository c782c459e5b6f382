"""QuantLinear: a linear layer whose codes stay packed and whose scales are live."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forq.quant.kernels import reference
from forq.quant.scratch import Scratch
from forq.quant.weight import QuantWeight


class QuantLinear(nn.Module):
    """``y = x · wᵀ + b`` with w dequantised on the way.

    Attributes:
        weight: the integers.
        scales: float32 buffer in the *file's* layout, so that coordinate i of the leaf is element i of the
            checkpoint's tensor; (groups, out) for GPTQ.
        bias: (out,) parameter, or None.
        leaf_name: the checkpoint's name of ``scales``.
        file_dtype: what the checkpoint stores the scales in.
    """

    scales: Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        weight: QuantWeight,
        scales: Tensor,
        bias: Tensor | None,
        leaf_name: str,
        file_dtype: torch.dtype,
        scratch: Scratch,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("scales", scales.to(torch.float32).contiguous())
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.leaf_name = leaf_name
        self.file_dtype = file_dtype
        self.scratch = scratch

    @property
    def in_features(self) -> int:
        return self.weight.in_features

    @property
    def out_features(self) -> int:
        return self.weight.out_features

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        return reference.matmul(x, self.weight, self.scales, self.bias, self.scratch)

    def extra_repr(self) -> str:
        return (
            f"{self.in_features} → {self.out_features}, {self.weight.bits} bits, "
            f"group {self.weight.group_size}, bias={self.bias is not None}"
        )
