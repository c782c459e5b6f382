"""QuantLinear: a linear layer whose codes stay packed and whose scales are inputs of every forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from forq.coordinates.leaf import Overlay, SparseCodes
from forq.errors import RunError
from forq.layers.kernels import bfloat16, int8, ort, reference
from forq.layers.kernels.blocks import Product, product
from forq.layers.kernels.native import matmul as native
from forq.layers.layer import FiledCodes, Live, Parts, ZeroPoints
from forq.layers.probe import CodeProbe
from forq.layers.scratch import Scratch
from forq.layers.weight import CodedRows, CodedWeight, QuantWeight, RowWeight, Table, Weight
from forq.tokens.forward import rows_in_forward

Choice = Literal["auto", "reference", "native", "ort", "triton"]
Activations = Literal["float", "bfloat16", "int8"]
Unpacked = Literal["reference", "native", "triton"]


class QuantLinear(nn.Module):
    """``y = x · wᵀ + b`` with w dequantised on the way.

    Attributes:
        scales: float32 buffer in the *file's* layout, so that coordinate i of the leaf is element i of the
            checkpoint's tensor; (groups, out) for GPTQ.
        bias: (out,) parameter, or None.
        specs: names and dtypes of the live tensors; see :attr:`live`.
        kernel: which kernel computes the layer: ``reference``, ``native``, ``ort``, ``int8`` or ``triton``.
        unpacked: the kernel that reads the weight as it is kept: ``reference``, ``native`` or ``triton``.
        zero_points, filed_codes: how the file packs them, where they are integers.
        code_overlay: writes the codes of some rows to compute with, float32 (rows, codes of a row), in place of the
            layer's own.
        sparse_codes: single codes to compute with in place of the layer's own.
        factors: of the outputs, before the bias: from the numbers of the rows in the forward pass to (rows, outputs).
        embeds: it is the table of an embedding too, whose lookups have no outputs to multiply.
        in_bfloat16: the product is computed in bfloat16; see :mod:`forq.layers.kernels.bfloat16`.

    Args:
        parts: what a format read; already on the layer's device.
        specs: of the live tensors, in the order of ``parts.live``.
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
        self._packs: Callable[[QuantWeight], ort.Kernel | int8.Kernel] | None = None
        self._zeros_moved = False
        self._arrange = parts.arrange
        self.zero_points: ZeroPoints | None = None
        self.filed_codes: FiledCodes | None = None
        self.code_overlay: Overlay | None = None
        self.sparse_codes: SparseCodes | None = None
        self.factors: Callable[[Sequence[int]], Tensor] | None = None
        self.embeds = False
        self.in_bfloat16 = False
        self.unpacked: Unpacked = "reference"
        self.in_features, self.out_features = weight.in_features, weight.out_features
        self.bits, self.group_size = weight.bits, weight.group_size
        self.specs = specs
        self._live_names = ("scales", *(f"live{place}" for place in range(1, len(specs))))
        for name, tensor in zip(self._live_names, parts.live, strict=True):
            self.register_buffer(name, tensor.to(torch.float32).contiguous())
        self._weight = self._reading_live(weight)
        self.bias = None if parts.bias is None else nn.Parameter(parts.bias, requires_grad=False)
        self.scratch = scratch

    @property
    def live(self) -> Mapping[Live, Tensor]:
        """The continuous tensors, float32 in the file's layout, written in place; the scales first."""
        return {spec: getattr(self, name) for spec, name in zip(self.specs, self._live_names, strict=True)}

    @property
    def multiplies(self) -> bool:
        """Whether :attr:`factors` multiply all that the layer is used for."""
        return not self.embeds

    @property
    def leaf_name(self) -> str:
        """The checkpoint's name of the scales."""
        return self.specs[0].name

    @property
    def weight(self) -> QuantWeight:
        """:attr:`frozen`, of a layer whose weight every kernel can read."""
        return cast(QuantWeight, self.frozen)

    @property
    def frozen(self) -> Weight:
        """The frozen weight, of any kind; read from the file again where a kernel holds it in its own packing."""
        if self._weight is None:
            assert self._read is not None
            self._weight = self._read()
        return self._weight

    @property
    def kernel(self) -> str:
        return self.unpacked if self._packed is None else self._packed.name

    def use(self, kernel: Callable[[QuantWeight], ort.Kernel | int8.Kernel], read: Callable[[], Weight]) -> None:
        """Compute the layer by a kernel with its own packing, and free the integers.

        Args:
            kernel: makes the kernel.
            read: reads the integers again, should they be asked for.

        Raises:
            ConfigError: see the kernel's ``unfit``.
        """
        self._packed, self._packs = kernel(self.weight), kernel
        self._read, self._weight = read, None

    def reads(self, read: Callable[[], Weight]) -> None:
        """Say how the file's integers are read again."""
        self._read = read

    def use_file(self) -> bool:
        """Compute with the file's integers again, by the kernel that the layer had before they could move.

        Returns:
            Whether some of them had moved.

        Raises:
            RunError: the layer was not told how to read them.
        """
        if self._read is None:
            raise RunError(f"{self.leaf_name}: expected a layer of a checkpoint, found no file; load the model again")
        old, fresh = self._weight, self._reading_live(self._read().to(self.scales.device))
        moved = old is not None and _differ(old, fresh)
        if old is None or self._zeros_moved:
            self._weight, self._zeros_moved = fresh, False
        else:
            # In place: a space that moved the codes may still hold this storage, and two would double the memory.
            cast(CodedWeight, old).codes.copy_(cast(CodedWeight, fresh).codes)
        if self._packs is not None:
            self.use(self._packs, self._read)
        return moved

    def use_moving_zeros(self) -> None:
        """Use a kernel that reads the zero points in every call, since they may change."""
        self._weight, self._packed = self.weight.with_own_zeros(), None
        self._zeros_moved = True

    def use_moving_codes(self) -> None:
        """Use a kernel that reads the codes in every call, since they may change."""
        self._weight, self._packed = self.frozen, None

    def _reading_live(self, weight: Weight) -> Weight:
        """A weight whose continuous zero points, if it has some, are the second live tensor itself, since they move."""
        if isinstance(weight, QuantWeight) and weight.zeros.is_floating_point():
            return replace(weight, zeros=self._arrange(self.live1))
        return weight

    def dequantise(self) -> Tensor:
        """The whole matrix, a fresh float32 (out, in): for tests and export."""
        weight = self.frozen
        if isinstance(weight, QuantWeight):
            return reference.dequantise(weight, self._arrange(self.scales))
        return reference.dequantise_rows(cast(RowWeight, weight), tuple(self.live.values()))

    def rows(self, wanted: Tensor) -> Tensor:
        """Some rows of the matrix, with a probe if one is shown: int64 (n,), rising → float32 (n, in).

        Only for layers whose live tensors have the outputs on axis 0.
        """
        live = tuple(tensor.index_select(0, wanted) for tensor in self.live.values())
        part = cast(Table, self.frozen).at(wanted)
        if (probe := self._probe) is not None:
            probe.put_rows(cast(CodedWeight, part), wanted)
        if isinstance(part, QuantWeight):
            return reference.dequantise(part, self._arrange(live[0]))
        return reference.dequantise_rows(cast(RowWeight, part), live)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        if self.factors is None:
            return self._matmul(x, self.bias)
        y = self._matmul(x, None)
        self._multiply(y, rows_in_forward(), self.factors)
        return y if self.bias is None else y.add_(self.bias.to(y.dtype))

    def _multiply(self, y: Tensor, rows: tuple[int, ...], factors: Callable[[Sequence[int]], Tensor]) -> None:
        """Multiply outputs (rows, …, out), or (rows · …, out), by the factors of their rows."""
        if not rows or y.shape[:-1].numel() % len(rows):
            raise RunError(f"expected outputs of {len(rows)} rows of the batch, found shape {tuple(y.shape)}")
        distinct = sorted(set(rows))
        place = {row: at for at, row in enumerate(distinct)}
        own = factors(distinct)[[place[row] for row in rows]]  # float32: a small factor would be lost in bfloat16
        y.view(len(rows), -1, self.out_features).mul_(own[:, None])

    def _matmul(self, x: Tensor, bias: nn.Parameter | None) -> Tensor:
        if self._packed is not None and self._probe is None and self._plain(x):
            y = self._packed.matmul(x, self._arrange(self.scales))
            return y if bias is None else y.add_(bias)
        weight = self.frozen
        if not isinstance(weight, QuantWeight):
            return self._matmul_rows(x, bias)
        scales = self._arrange(self.scales)
        native_here = self.unpacked == "native"
        if self.code_overlay is not None:
            shown = native.matmul_shown if native_here else reference.matmul_shown
            return shown(x, self.code_overlay, weight, scales, bias, self.scratch, self._product)
        if self.unpacked == "triton":
            from forq.layers.kernels import triton

            return triton.matmul(x, weight, scales, bias, self.scratch, self.sparse_codes)
        matmul = native.matmul if native_here else reference.matmul
        return matmul(x, weight, scales, bias, self.scratch, self.sparse_codes, self._product)

    def _matmul_rows(self, x: Tensor, bias: nn.Parameter | None) -> Tensor:
        """The product with a weight that dequantises its own rows."""
        live, probe = tuple(self.live.values()), self._probe
        codes = None if probe is None else probe.packed(cast(CodedRows, self.frozen))
        rows = native.matmul_rows if self.unpacked == "native" else reference.matmul_rows
        return rows(x, cast(RowWeight, self.frozen), live, bias, self.scratch, codes, self._product)

    @property
    def _product(self) -> Product:
        return bfloat16.product if self.in_bfloat16 else product

    @property
    def _probe(self) -> CodeProbe | None:
        """The probe of codes that is shown."""
        shown = self.code_overlay or self.sparse_codes
        if shown is None:
            return None
        assert self.filed_codes is not None
        return CodeProbe(shown, self.filed_codes.shape, self.scratch)

    def _plain(self, x: Tensor) -> bool:
        """Whether a packed kernel can compute this: they take float32 on a CPU, and drop gradients in silence.

        The reference kernel raises where a gradient is required.
        """
        graded = torch.is_grad_enabled() and (x.requires_grad or self.scales.requires_grad)
        return not graded and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (x, self.scales))

    def extra_repr(self) -> str:
        size = f"{self.in_features} → {self.out_features}, {self.bits} bits, group {self.group_size}"
        return f"{size}, bias={self.bias is not None}, kernel={self.kernel}"


def _differ(left: Weight, right: Weight) -> bool:
    """Whether two weights of one layer hold other codes or zero points."""
    if not torch.equal(cast(CodedWeight, left).codes, cast(CodedWeight, right).codes):
        return True
    return isinstance(left, QuantWeight) and not torch.equal(left.zeros, cast(QuantWeight, right).zeros)
