"""QuantLinear: a linear layer whose codes stay packed and whose scales are live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from forq.coordinates.leaf import SparseCodes
from forq.layers.kernels import int8, ort, reference
from forq.layers.layer import FiledCodes, Live, Parts, ZeroPoints
from forq.layers.scratch import Scratch
from forq.layers.weight import CodedRows, CodedWeight, QuantWeight, RowWeight, Table, Weight

Choice = Literal["auto", "reference", "ort", "triton"]
Activations = Literal["float", "int8"]
CODES_PER_PUT = 1 << 18
"""Codes packed at a time: what is between stays in the cache."""


class QuantLinear(nn.Module):
    """``y = x · wᵀ + b`` with w dequantised on the way.

    Attributes:
        scales: float32 buffer in the *file's* layout, so that coordinate i of the leaf is element i of the
            checkpoint's tensor; (groups, out) for GPTQ.
        bias: (out,) parameter, or None.
        specs: what the live tensors are called and stored in; see :attr:`live`.
        kernel: which kernel computes the layer: ``reference``, ``ort``, ``int8`` or ``triton``.
        fused: let ``triton`` compute it where it lies, in place of ``reference``.
        zero_points, filed_codes: how the file packs them, where they are integers of their own.
        code_overlay: fills in codes to compute with, float32 (rows, codes of a row), in place of the layer's own.
        sparse_codes: some codes to compute with in place of the layer's own.

    Args:
        parts: what a format read; on the layer's device already.
        specs: of the live tensors, in their order.
        scratch: buffers shared with every other layer of the model.
    """

    scales: Tensor
    live1: Tensor
    bias: nn.Parameter | None

    def __init__(self, parts: Parts, specs: tuple[Live, ...], scratch: Scratch) -> None:
        super().__init__()
        weight = parts.weight
        self._weight: Weight | None = weight
        self._read: Callable[[], Weight] | None = None
        self._packed: ort.Kernel | int8.Kernel | None = None
        self._arrange = parts.arrange
        self.zero_points: ZeroPoints | None = None
        self.filed_codes: FiledCodes | None = None
        self.code_overlay: Callable[[Tensor], None] | None = None
        self.sparse_codes: SparseCodes | None = None
        self.fused = False
        self.in_features, self.out_features = weight.in_features, weight.out_features
        self.bits, self.group_size = weight.bits, weight.group_size
        self.specs = specs
        for place, tensor in zip(self._buffers_of(specs), parts.live, strict=True):
            self.register_buffer(place, tensor.to(torch.float32).contiguous())
        if isinstance(weight, QuantWeight) and weight.zeros.is_floating_point():
            # Continuous zero points move: the weight reads the live tensor itself, the second one.
            self._weight = replace(weight, zeros=parts.arrange(self.live1))
        self.bias = None if parts.bias is None else nn.Parameter(parts.bias, requires_grad=False)
        self.scratch = scratch

    @staticmethod
    def _buffers_of(specs: tuple[Live, ...]) -> tuple[str, ...]:
        return ("scales", *(f"live{place}" for place in range(1, len(specs))))

    @property
    def live(self) -> Mapping[Live, Tensor]:
        """The continuous tensors, float32 in the file's layout, written in place; the scales first."""
        return {
            spec: getattr(self, place) for spec, place in zip(self.specs, self._buffers_of(self.specs), strict=True)
        }

    @property
    def leaf_name(self) -> str:
        """The checkpoint's name of the scales."""
        return self.specs[0].name

    @property
    def weight(self) -> QuantWeight:
        """The integers; read from the file again where the kernel holds them in a packing of its own.

        Of a layer whose weight is one that every kernel reads.
        """
        return cast(QuantWeight, self.frozen)

    @property
    def frozen(self) -> Weight:
        """What stands still of the layer, of whatever kind."""
        if self._weight is None:
            assert self._read is not None
            self._weight = self._read()
        return self._weight

    @property
    def kernel(self) -> str:
        if self._packed is not None:
            return self._packed.name
        return "triton" if self.fused else "reference"

    def use(self, kernel: Callable[[QuantWeight], ort.Kernel | int8.Kernel], read: Callable[[], Weight]) -> None:
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
        """Let a kernel compute the layer that reads zero points at every call: they may change at any time."""
        self._weight, self._packed = self.weight.with_own_zeros(), None

    def use_moving_codes(self) -> None:
        """Let a kernel compute the layer that reads codes at every call: they may change at any time."""
        self._weight, self._packed = self.frozen, None

    def dequantise(self) -> Tensor:
        """The whole matrix as the layer shows it now, a fresh float32 (out, in): for tests and export."""
        weight = self.frozen
        if isinstance(weight, QuantWeight):
            return reference.dequantise(weight, self._arrange(self.scales))
        return reference.dequantise_rows(cast(RowWeight, weight), tuple(self.live.values()))

    def rows(self, wanted: Tensor) -> Tensor:
        """Some rows of the matrix as the layer shows it now: int64 (n,), rising → float32 (n, in).

        Of a layer whose live tensors have the outputs first.
        """
        live = tuple(tensor.index_select(0, wanted) for tensor in self.live.values())
        some = cast(Table, self.frozen).at(wanted)
        if self.code_overlay is not None:
            shown = self._filled(self.code_overlay).index_select(0, wanted)
            cast(CodedWeight, some).put_codes(0, shown.view(-1))
        elif self.sparse_codes is not None:
            codes = _among(self.sparse_codes, wanted, self.in_features)
            cast(CodedWeight, some).put_codes_at(codes.places, codes.x)
        if isinstance(some, QuantWeight):
            return reference.dequantise(some, self._arrange(live[0]))
        return reference.dequantise_rows(cast(RowWeight, some), live)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        moving = self.code_overlay is not None or self.sparse_codes is not None
        if self._packed is not None and not moving and self._plain(x):
            y = self._packed.matmul(x, self._arrange(self.scales))
            return y if self.bias is None else y.add_(self.bias)
        weight = self.frozen
        if not isinstance(weight, QuantWeight):
            live = tuple(self.live.values())
            return reference.matmul_rows(x, self._shown(weight), live, self.bias, self.scratch)
        scales = self._arrange(self.scales)
        if self.code_overlay is not None:
            return reference.matmul_shown(x, self.code_overlay, weight, scales, self.bias, self.scratch)
        if self.fused:
            from forq.layers.kernels import triton

            return triton.matmul(x, weight, scales, self.bias, self.scratch, self.sparse_codes)
        return reference.matmul(x, weight, scales, self.bias, self.scratch, self.sparse_codes)

    def _shown(self, weight: Weight) -> RowWeight:
        """A weight of its own make, with the codes of a probe in a copy of its own where there is one."""
        if self.code_overlay is None and self.sparse_codes is None:
            return cast(RowWeight, weight)
        held = cast(CodedRows, weight)
        codes = self.scratch.take("shown", tuple(held.codes.shape), held.codes.dtype, held.codes.device)
        other = held.with_codes(codes.copy_(held.codes))
        self._put_probe(other)
        return other

    def _put_probe(self, other: CodedWeight) -> None:
        """Store the codes of a probe in a weight that is a copy, some rows at a time."""
        if self.code_overlay is not None:
            shown = self._filled(self.code_overlay)
            step = max(1, CODES_PER_PUT // shown.shape[1])
            for first in range(0, len(shown), step):
                other.put_codes(first * shown.shape[1], shown[first : first + step].view(-1))
        elif self.sparse_codes is not None:
            other.put_codes_at(self.sparse_codes.places, self.sparse_codes.x)

    def _filled(self, overlay: Callable[[Tensor], None]) -> Tensor:
        """All codes to compute with, float32, in the buffer that weights are dequantised into."""
        assert self.filed_codes is not None
        dense = self.scratch.take("dense", self.filed_codes.shape, torch.float32, self.scales.device)
        overlay(dense)
        return dense

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


def _among(codes: SparseCodes, rows: Tensor, columns: int) -> SparseCodes:
    """Those of some coordinates that lie in some rows, as coordinates of these rows alone."""
    row = codes.places // columns
    at = torch.searchsorted(rows, row).clamp_(max=len(rows) - 1)
    here = rows[at] == row
    return SparseCodes(at[here] * columns + codes.places[here] % columns, codes.x[here])
