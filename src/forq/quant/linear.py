"""QuantLinear: a linear layer whose codes stay packed and whose scales are live."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from forq.quant.kernels import int8, ort, reference
from forq.quant.layer import FiledCodes, ZeroPoints
from forq.quant.scratch import Scratch
from forq.quant.weight import QuantWeight

Choice = Literal["auto", "reference", "ort"]
Activations = Literal["float", "int8"]


class QuantLinear(nn.Module):
    """``y = x · wᵀ + b`` with w dequantised on the way.

    Attributes:
        scales: float32 buffer in the *file's* layout, so that coordinate i of the leaf is element i of the
            checkpoint's tensor; (groups, out) for GPTQ.
        bias: (out,) parameter, or None.
        leaf_name: the checkpoint's name of ``scales``.
        file_dtype: what the checkpoint stores the scales in.
        kernel: which kernel computes the layer: ``reference``, ``ort`` or ``int8``.
        zero_points, filed_codes: how the file packs them, where they are integers of their own.
        code_overlay: fills in codes to compute with, float32 (out, in), in place of the layer's own.
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
        self._weight: QuantWeight | None = weight
        self._read: Callable[[], QuantWeight] | None = None
        self._packed: ort.Kernel | int8.Kernel | None = None
        self.zero_points: ZeroPoints | None = None
        self.filed_codes: FiledCodes | None = None
        self.code_overlay: Callable[[Tensor], None] | None = None
        self.in_features, self.out_features = weight.in_features, weight.out_features
        self.bits, self.group_size = weight.bits, weight.group_size
        self.register_buffer("scales", scales.to(torch.float32).contiguous())
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.leaf_name = leaf_name
        self.file_dtype = file_dtype
        self.scratch = scratch

    @property
    def weight(self) -> QuantWeight:
        """The integers; read from the file again where the kernel holds them in a packing of its own."""
        if self._weight is None:
            assert self._read is not None
            self._weight = self._read()
        return self._weight

    @property
    def kernel(self) -> str:
        return "reference" if self._packed is None else self._packed.name

    def use(self, kernel: Callable[[QuantWeight], ort.Kernel | int8.Kernel], read: Callable[[], QuantWeight]) -> None:
        """Let a kernel with a packing of its own compute the layer, and let go of the integers.

        Args:
            kernel: makes it.
            read: gives the integers again, for whoever asks for them later.

        Raises:
            ConfigError: see the kernel's ``unfit``.
        """
        self._packed = kernel(self.weight)
        self._read, self._weight = read, None

    def use_moving_zeros(self) -> None:
        """Let the reference kernel compute the layer, from zero points that may change at any time."""
        self._weight, self._packed = self.weight.with_own_zeros(), None

    def use_moving_codes(self) -> None:
        """Let the reference kernel compute the layer, from codes that may change at any time."""
        self._weight, self._packed = self.weight, None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        if self.code_overlay is not None:
            return reference.matmul_shown(x, self.code_overlay, self.weight, self.scales, self.bias, self.scratch)
        if self._packed is None or not self._plain(x):
            return reference.matmul(x, self.weight, self.scales, self.bias, self.scratch)
        y = self._packed.matmul(x, self.scales)
        return y if self.bias is None else y.add_(self.bias)

    def _plain(self, x: Tensor) -> bool:
        """Whether another kernel may be given this: they read float32 of the CPU, and without gradients.

        They would drop a gradient without a word; the reference refuses.
        """
        live = torch.is_grad_enabled() and (x.requires_grad or self.scales.requires_grad)
        return not live and all(one.dtype == torch.float32 and one.device.type == "cpu" for one in (x, self.scales))

    def extra_repr(self) -> str:
        return (
            f"{self.in_features} → {self.out_features}, {self.bits} bits, group {self.group_size}, "
            f"bias={self.bias is not None}, kernel={self.kernel}"
        )
