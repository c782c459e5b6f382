"""ONNX in 8 or 4 bits: a graph whose weights go through DequantizeLinear, or into integer operators.

    codes   int8, uint8, int4 or uint4, in the shape of the weight: (out, in, kh, kw) of a Conv
    scales  float32: one, one for each output, or one for each block of a matrix
    zeros   in the dtype of the codes; 0 where there are none; they do not move

onnxruntime's own quantizer writes both forms. Nodes inside other nodes (the branches of an If) are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint, Relaid
from forq.checkpoints.containers.onnx.small import integers
from forq.errors import FormatError
from forq.formats.base import About, Format
from forq.formats.codecs.onnx_beside import beside
from forq.formats.codecs.onnx_biases import Biases
from forq.formats.codecs.onnx_products import CODES, Product, products
from forq.layers.codes import pack, unpack
from forq.layers.layer import SHARED, FiledCodes, LayerSpec, Live, Parts, as_stored
from forq.layers.linear import Activations
from forq.layers.weight import QuantWeight, zeros_dtype


class ONNXInt8(Format):
    """Weights in integers behind DequantizeLinear or inside integer operators."""

    about = About(
        title="ONNX (QDQ and integer operators)",
        bits="4, 8",
        moves=("scales", "codes", "biases", "activations"),
        exported="the same file (its external data beside it)",
        library="onnxruntime 1.31.1",
        layout=(
            "codes        int8, uint8, int4 or uint4, in the shape of the weight",
            "scales       float32: (), (1,), (out,), or (groups, out) by block",
            "zeros        in the dtype of the codes, optional",
        ),
        exceptions=(
            "an int32 bias and its scale, where a fused operator takes that scale to be the input's times the weight's",
        ),
        zero_points="Stored ones count; a weight without any has 0.",
    )

    def recognise(self, ckpt: Checkpoint) -> bool:
        """Whether the checkpoint is a graph with such weights, and without MatMulNBits nodes."""
        if ckpt.graph is None or any(node.op == "MatMulNBits" for node in ckpt.graph.nodes):
            return False
        return bool(products(ckpt.graph))

    def layers(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The weights that can move, by the names of their nodes, checked from the headers alone.

        Raises:
            FormatError: codes, scales and zero points do not fit together.
        """
        return {name: _spec(ckpt, product) for name, product in _products(ckpt).items() if not product.still}

    def fixed(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The weights that stand still, since their scales are shared or no constants."""
        return {name: _spec(ckpt, product) for name, product in _products(ckpt).items() if product.still}

    def read(self, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
        """Codes from 0 on, with the outputs as rows, and scales."""
        product = _products(ckpt)[spec.name]
        _, least = _width(ckpt, product)
        codes = _as_rows(_codes(ckpt, product), product)
        groups = -(-spec.in_features // spec.group_size)
        zeros = torch.full((groups, spec.out_features), -least, dtype=zeros_dtype(8))
        if product.zeros:
            assert ckpt.graph is not None
            stored = torch.from_numpy(integers(ckpt.graph, product.zeros)).to(zeros.dtype)
            zeros = _by_group(stored, product, spec.out_features).expand_as(zeros) + zeros
        arrange = partial(_by_group, product=product, rows=spec.out_features)
        live = tuple(ckpt.read(one.name) for one in spec.live)
        return Parts(
            QuantWeight(codes, zeros.contiguous(), 8, spec.group_size), live, None, arrange if live else as_stored
        )

    def filed_codes(self, ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes | None:
        """How the codes of a layer are packed; None where other nodes read them too."""
        assert ckpt.graph is not None
        product = _products(ckpt)[spec.name]
        if sum(product.codes in node.inputs for node in ckpt.graph.nodes) > 1:
            return None
        bits, least = _width(ckpt, product)
        info, shape = ckpt.info[product.codes], ckpt.graph.initialisers[product.codes].shape

        def packed(codes: Tensor) -> Tensor:
            values = _as_filed(codes, product, shape)
            if bits == 8:
                return (values.to(torch.int16) + least).to(info.dtype)
            flat = (values.reshape(-1) + least) & 15
            even = torch.nn.functional.pad(flat, (0, flat.numel() % 2))
            return pack(even.view(1, -1), 4).view(-1)

        return FiledCodes(product.codes, info.dtype, spec.shape, bits, packed)

    def beside(self, ckpt: Checkpoint) -> dict[str, str]:
        """Float biases of products, and the scales of rounded activations."""
        assert ckpt.graph is not None
        return beside(ckpt.graph)

    def unlike(self, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
        """Weights that stand still, and why."""
        return tuple(
            f"The weight of {name} stands still and the rest tunes: {product.still}."
            for name, product in _products(ckpt).items()
            if product.still
        )

    def relaid(self, ckpt: Checkpoint, moved: Mapping[str, Tensor]) -> Relaid:
        """What moved, and the integer biases that follow."""
        given = {name: moved[name] for name in moved if name in ckpt.info and ckpt.info[name].dtype.is_floating_point}
        return Relaid({**moved, **Biases(ckpt, _products(ckpt).values()).following(given)})


format = ONNXInt8()


def _products(ckpt: Checkpoint) -> Mapping[str, Product]:
    assert ckpt.graph is not None
    return products(ckpt.graph)


def _width(ckpt: Checkpoint, product: Product) -> tuple[int, int]:
    """Bits of a code, and the smallest value of one."""
    assert ckpt.graph is not None
    return CODES[ckpt.graph.initialisers[product.codes].kind]


def _outputs_axis(product: Product) -> int:
    return 1 - product.axis if product.block else product.axis


def _as_rows(codes: Tensor, product: Product) -> Tensor:
    """Codes in the shape of the weight as (rows, codes of a row), the outputs as rows."""
    return codes.movedim(_outputs_axis(product), 0).reshape(codes.shape[_outputs_axis(product)], -1).contiguous()


def _as_filed(rows: Tensor, product: Product, shape: tuple[int, ...]) -> Tensor:
    """The inverse of :func:`_as_rows`."""
    axis = _outputs_axis(product)
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    return rows.reshape(moved).movedim(0, axis).contiguous()


def _by_group(values: Tensor, product: Product, rows: int) -> Tensor:
    """Scales or zero points of the file as (groups, out), a view."""
    if product.block:
        return values if product.axis == 0 else values.t()
    return values.reshape(1, -1).expand(1, rows)


def _codes(ckpt: Checkpoint, product: Product) -> Tensor:
    """Codes from 0 on, uint8, in the shape of the weight."""
    assert ckpt.graph is not None
    bits, least = _width(ckpt, product)
    stored, shape = ckpt.read(product.codes), ckpt.graph.initialisers[product.codes].shape
    if bits == 8:
        return (stored.to(torch.int16) - least).to(torch.uint8).view(shape)
    nibbles = unpack(stored.view(1, -1), 4).view(-1)[: math.prod(shape)]
    return (nibbles ^ 8 if least else nibbles).view(shape)


def _spec(ckpt: Checkpoint, product: Product) -> LayerSpec:
    assert ckpt.graph is not None
    initialisers = ckpt.graph.initialisers
    shape = initialisers[product.codes].shape
    if product.codes not in ckpt.info or 0 in shape:
        raise FormatError(
            f"{ckpt.path}: {product.codes}: expected codes in bytes end to end, found none; save the model with onnx's "
            "own writer"
        )
    axis = _outputs_axis(product)
    rows, columns = shape[axis], math.prod(shape) // shape[axis]
    size, live = columns, tuple[Live, ...]()
    if not product.still:
        if product.scales not in ckpt.info:
            raise FormatError(
                f"{ckpt.path}: {product.scales}: expected scales in bytes end to end, found none; save the model with "
                "onnx's own writer"
            )
        info = ckpt.info[product.scales]
        count = math.prod(info.shape)
        wanted = columns // product.block * rows if product.block else rows
        if count not in (1, wanted) or (product.block and count != wanted):
            raise FormatError(
                f"{ckpt.path}: {product.scales}: expected 1 scale or {wanted} for codes of shape {shape}, found shape "
                f"{info.shape}"
            )
        if product.zeros:
            _check_zeros(ckpt, product, info.shape if product.block else (rows,))
        size = product.block or columns
        out_axis = SHARED if count == 1 and rows > 1 else _place(info.shape, product)
        live = (Live(product.scales, info.dtype, out_axis=out_axis),)
    names = (
        product.codes,
        product.scales,
        product.zeros,
        *(name for b in product.biases for name in (b.codes, b.scales)),
    )
    bits = CODES[initialisers[product.codes].kind][0]
    return LayerSpec(product.name, columns, rows, bits, size, live, None, tuple(filter(None, names)))


def _check_zeros(ckpt: Checkpoint, product: Product, wanted: tuple[int, ...]) -> None:
    """Zero points are constants: one for each scale of a block, else one for each output or a single one.

    Raises:
        FormatError: they are not.
    """
    assert ckpt.graph is not None
    zeros = ckpt.graph.initialisers.get(product.zeros)
    fits = zeros is not None and (
        zeros.shape == wanted if product.block else math.prod(zeros.shape) in (1, math.prod(wanted))
    )
    if not fits:
        found = "no constant" if zeros is None else f"shape {zeros.shape}"
        raise FormatError(f"{ckpt.path}: {product.zeros}: expected zero points of shape {wanted}, found {found}")


def _place(shape: tuple[int, ...], product: Product) -> int:
    """The axis of the scales that counts the outputs."""
    if product.block:
        return 1 - product.axis
    return next((axis for axis, size in enumerate(shape) if size > 1), len(shape) - 1)
