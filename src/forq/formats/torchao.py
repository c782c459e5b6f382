"""torchao: signed codes a byte each, one scale and zero point a block of a row, as transformers saves them.

    _weight_qdata       int8 (out, in)
    _weight_scale       float (out / rows, in / columns of a block)
    _weight_zero_point  int8, likewise; w = (q − zero) · scale

What a weight is stands as JSON in the safetensors header, under the weight's name: ``Int8Tensor`` (Int8WeightOnly,
Int8DynamicActivationInt8Weight) or ``IntxUnpackedToInt8Tensor`` (IntxWeightOnly, Int8DynamicActivationIntxWeight) with
a ``target_dtype``. Layout as torchao's ``flatten_tensor_state_dict`` writes it. Where a file asks for activations of 8
bits they stay in float here: what is tuned are the weights. ``Int8Tensor`` computes without its zero points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.safetensors import read_metadata
from forq.errors import FormatError
from forq.formats.base import About, Format, inputs_here
from forq.formats.codecs.torchao_header import Description, described
from forq.layers.codes import pack, parts, unpack
from forq.layers.layer import SHARED, FiledCodes, LayerSpec, Live, Parts, ZeroPoints
from forq.layers.linear import Activations
from forq.layers.weight import QuantWeight, zeros_dtype

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
_QDATA, _SCALE, _ZERO = "_weight_qdata", "_weight_scale", "_weight_zero_point"


class TorchAO(Format):
    """Weights of the kinds ``Int8Tensor`` and ``IntxUnpackedToInt8Tensor``."""

    about = About(
        title="torchao",
        bits="2, 3, 4, 8",
        moves=("scales", "codes", "zeros"),
        exported=(
            "the same file, the text in its header included; activations of 8 bits that it asks for are the library's"
        ),
        library="torchao 0.18.0",
        layout=(
            "_weight_qdata       int8 (out, in), signed codes of the target's bits",
            "_weight_scale       float (out, groups), or (1, 1) for a whole matrix",
            "_weight_zero_point  int8, likewise; zeros of Int8Tensor, which computes without them",
            "__metadata__        JSON by weight: Int8Tensor or IntxUnpackedToInt8Tensor, block_size, target_dtype",
        ),
        zero_points=(
            "The kind of the weight decides: Int8Tensor computes without its zero points, and stored ones other than 0 "
            "are refused; IntxUnpackedToInt8Tensor reads them."
        ),
    )

    def recognise(self, ckpt: Checkpoint) -> bool:
        """Whether the checkpoint holds int8 codes of a flattened weight beside their scale."""
        return any(
            name.endswith(f".{_QDATA}") and info.dtype == torch.int8 and name[: -len(_QDATA)] + _SCALE in ckpt.info
            for name, info in ckpt.info.items()
        )

    def layers(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The quantized layers by module name, checked from the headers alone.

        Raises:
            FormatError: tensors are missing, or contradict each other or the header; a kind of weight that is not read.
        """
        end = f".{_QDATA}"
        modules = sorted(name.removesuffix(end) for name in ckpt.info if name.endswith(end))
        text = _text(ckpt)
        return {module: _spec(ckpt, module, described(text, module)) for module in modules}

    def read(self, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
        """Integers, scales and bias of a layer.

        Raises:
            FormatError: a code or zero point is outside of its range.
        """
        half = 1 << spec.bits - 1
        whole = _unsigned(ckpt.read(f"{spec.name}.{_QDATA}"), half, f"{spec.name}.{_QDATA}").to(torch.uint8)
        zeros = torch.full((spec.in_features // spec.group_size, spec.out_features), half, dtype=zeros_dtype(spec.bits))
        name = f"{spec.name}.{_ZERO}"
        if name in spec.tensors:
            stored = _unsigned(ckpt.read(name), half, name).to(zeros.dtype)
            if spec.zeros is None and not bool((stored == half).all()):
                raise FormatError(f"{name}: expected zeros, since Int8Tensor computes without them; found other values")
            zeros.copy_(stored.t())
        weight = QuantWeight(pack(whole, spec.bits), zeros, spec.bits, spec.group_size)
        bias = None if spec.bias is None else ckpt.read(spec.bias)
        rows = spec.out_features

        def by_group(scales: Tensor) -> Tensor:
            return scales.t().expand(-1, rows)

        return Parts(weight, (ckpt.read(spec.live[0].name),), bias, by_group)

    def filed_codes(self, ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
        """How the codes of a layer are stored: signed, a byte each."""
        half = 1 << spec.bits - 1

        def packed(codes: Tensor) -> Tensor:
            whole = unpack(codes, spec.bits)
            # As bytes of two's complement; a half of 128 is the sign bit itself.
            return (whole ^ half).view(torch.int8) if spec.bits == 8 else whole.view(torch.int8).sub_(half)

        return FiledCodes(f"{spec.name}.{_QDATA}", torch.int8, spec.shape, spec.bits, packed)

    def zero_points(self, ckpt: Checkpoint, spec: LayerSpec) -> ZeroPoints | None:
        """How the zero points of a layer are stored: signed, a byte each."""
        if spec.zeros is None:
            return None
        half = 1 << spec.bits - 1

        def packed(x: Tensor) -> Tensor:
            return (x.t() - half).to(torch.int8).contiguous()

        return ZeroPoints(spec.zeros, (0, 2 * half - 1), torch.int8, packed)

    def unlike(self, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
        """Layers whose inputs torchao rounds and forq does not."""
        text, end = _text(ckpt), f".{_QDATA}"
        rounded = {described(text, name.removesuffix(end)).inputs for name in ckpt.info if name.endswith(end)} - {None}
        return tuple(
            f"this checkpoint's layers are to round their inputs to {inputs}; {inputs_here(activations, 'torchao')}"
            for inputs in sorted(filter(None, rounded))
        )


format = TorchAO()


def _text(ckpt: Checkpoint) -> dict[str, str]:
    """The text in the headers of all files; each describes the weights in its file, or all."""
    text: dict[str, str] = {}
    for file in sorted({info.file for info in ckpt.info.values()}):
        text |= read_metadata(ckpt.folder / file)
    return text


def _unsigned(stored: Tensor, half: int, name: str) -> Tensor:
    """int16: signed numbers from 0 on."""
    if int(stored.min()) < -half or int(stored.max()) >= half:
        raise FormatError(
            f"{name}: expected numbers {-half} … {half - 1}, found {int(stored.min())} … {int(stored.max())}; the "
            "file is damaged"
        )
    return stored.to(torch.int16) + half


def _spec(ckpt: Checkpoint, module: str, how: Description) -> LayerSpec:
    shape = ckpt.info[f"{module}.{_QDATA}"].shape
    if len(shape) != 2 or 0 in shape:
        raise FormatError(f"{module}.{_QDATA}: expected a matrix, found shape {shape}")
    rows, columns = shape
    tall, wide = how.block
    if tall not in (1, rows) or columns % wide:
        raise FormatError(
            f"{module}.weight: expected a block_size of 1 or {rows} outputs and a divisor of {columns} inputs, found "
            f"{list(how.block)}"
        )
    if columns % parts(how.bits):
        raise FormatError(f"{module}: expected a multiple of {parts(how.bits)} inputs, found {columns}")

    def expect(kind: str, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...] = _FLOATS) -> torch.dtype:
        info = ckpt.info.get(f"{module}.{kind}")
        if info is None:
            raise FormatError(f"{module}: expected a tensor {kind!r} beside {_QDATA}, found none; the file is damaged")
        if info.shape != shape or info.dtype not in dtypes:
            raise FormatError(
                f"{module}.{kind}: expected {' or '.join(map(str, dtypes))} of shape {shape}, found {info.dtype} of "
                f"shape {info.shape}; the header contradicts the tensors: save the model again"
            )
        return info.dtype

    if f"{module}._weight_act_pre_scale" in ckpt.info:
        raise FormatError(f"{module}: expected no scales of its inputs, found _weight_act_pre_scale: not supported")
    expect(_QDATA, shape, (torch.int8,))
    blocks = (rows // tall, columns // wide)
    scales = Live(f"{module}.{_SCALE}", expect(_SCALE, blocks), out_axis=0 if tall == 1 else SHARED)
    kinds = [_QDATA, _SCALE]
    if how.points or f"{module}.{_ZERO}" in ckpt.info:
        expect(_ZERO, blocks, (torch.int8,))
        kinds.append(_ZERO)
    bias = f"{module}.bias" if f"{module}.bias" in ckpt.info else None
    if bias is not None:
        expect("bias", (rows,))
        kinds.append("bias")
    # Scales of activations whose rounding was settled beforehand: the library's business.
    kinds += [
        kind for kind in ("_weight_act_quant_scale", "_weight_act_quant_zero_point") if f"{module}.{kind}" in ckpt.info
    ]
    tensors = tuple(f"{module}.{kind}" for kind in kinds)
    # Zero points of a whole matrix would not be one a row, as they move.
    zeros = f"{module}.{_ZERO}" if how.points and tall == 1 else None
    return LayerSpec(module, columns, rows, how.bits, wide, (scales,), bias, tensors, zeros)
