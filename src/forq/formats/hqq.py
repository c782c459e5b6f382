"""HQQ: w = (code − zero) · scale with both continuous, a group a row of a reshaped matrix, in a file of torch.save.

    W_q    uint8 (words, columns), int32 at 3 bits; see :mod:`forq.formats.codecs.hqq_bits`
    scale  float (groups, 1) where axis is 1: a group is so many weights that follow each other
    zero   the same;  (1, groups) where axis is 0: a group is every groups-th weight

Beside them stand plain values (nbits, group_size, shape, axis, packing, …). The folder has a config.json and
``qmodel.pt``, which is read without running any of it (:mod:`forq.checkpoints.containers.torch_save`). Layout as
written by hqq's ``save_quantized``. Groups inside rows become a :class:`QuantWeight`, others a
:class:`ScatteredWeight`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats.base import About, Format
from forq.formats.codecs.hqq_bits import pack as into_words
from forq.formats.codecs.hqq_bits import unpack, words
from forq.formats.codecs.hqq_settings import settings
from forq.formats.codecs.hqq_weight import ScatteredWeight
from forq.layers.codes import pack, parts
from forq.layers.codes import unpack as codes_of
from forq.layers.layer import SHARED, FiledCodes, LayerSpec, Live, Parts
from forq.layers.weight import QuantWeight

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


class HQQ(Format):
    """Files of hqq's ``save_quantized``."""

    about = About(
        title="HQQ",
        bits="2, 3, 4, 8",
        moves=("scales", "offsets", "codes"),
        exported="the same file; scales and zero points are rounded to its dtype",
        library="hqq 0.2.8.post1",
        layout=(
            "W_q    uint8 (words, columns), int32 of ten codes at 3 bits",
            "scale  float (groups, 1), or (1, groups) where axis is 0",
            "zero   likewise, continuous",
        ),
        exceptions=("checksums of the ZIP's records",),
        zero_points="The stored ones count; HQQ has no symmetric scheme.",
    )

    def recognise(self, ckpt: Checkpoint) -> bool:
        """Whether the file holds W_q beside plain values that say its bits."""
        return any(
            name.endswith(".W_q") and f"{name.removesuffix('W_q')}nbits" in ckpt.contents.values for name in ckpt.info
        )

    def layers(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The quantized layers by module name, checked from the index alone.

        Raises:
            FormatError: tensors or values are missing, contradict each other, or are of a kind that is not read.
        """
        modules = sorted(name.removesuffix(".W_q") for name in ckpt.info if name.endswith(".W_q"))
        return {module: _spec(ckpt, module) for module in modules}

    def read(self, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
        """Integers, scales, zero points and bias of a layer."""
        how = settings(ckpt, spec.name)
        whole = unpack(ckpt.read(f"{spec.name}.W_q"), how.bits, how.tall).reshape(how.rows, how.columns)
        codes = pack(whole, how.bits)
        live = tuple(ckpt.read(live.name) for live in spec.live)
        bias = None if spec.bias is None else ckpt.read(spec.bias)
        if not how.inside:
            run = how.group_size if how.axis == 1 else 0
            return Parts(ScatteredWeight(codes, how.bits, how.groups, run), live, bias)
        shape = (how.columns // how.group_size, how.rows)
        weight = QuantWeight(codes, torch.zeros(shape), how.bits, how.group_size)

        def by_group(tensor: Tensor) -> Tensor:
            return tensor.view(shape[1], shape[0]).t()

        return Parts(weight, live, bias, by_group)

    def filed_codes(self, ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
        """How the codes of a layer are packed."""
        how, name = settings(ckpt, spec.name), f"{spec.name}.W_q"

        def packed(codes: Tensor) -> Tensor:
            return into_words(codes_of(codes, how.bits).reshape(how.tall, how.wide), how.bits)

        return FiledCodes(name, ckpt.info[name].dtype, spec.shape, spec.bits, packed)


format = HQQ()


def _spec(ckpt: Checkpoint, module: str) -> LayerSpec:
    how = settings(ckpt, module)
    if how.columns % parts(how.bits):
        raise FormatError(f"{module}: expected a multiple of {parts(how.bits)} inputs, found {how.columns}")

    def expect(kind: str, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...] = _FLOATS) -> torch.dtype:
        info = ckpt.info.get(f"{module}.{kind}")
        if info is None:
            raise FormatError(f"{module}: expected a tensor {kind!r} beside W_q, found none; the file is damaged")
        if info.shape != shape or info.dtype not in dtypes:
            raise FormatError(
                f"{module}.{kind}: expected {' or '.join(map(str, dtypes))} of shape {shape} for {how.bits} bits and "
                f"groups of {how.group_size}, found {info.dtype} of shape {info.shape}; the file is damaged"
            )
        return info.dtype

    expect("W_q", (words(how.tall, how.bits), how.wide), (torch.int32 if how.bits == 3 else torch.uint8,))
    shape, axis = ((how.groups, 1), 0) if how.axis == 1 else ((1, how.groups), SHARED)
    run = how.columns // how.group_size if how.axis == 1 and how.inside else 1
    scales = Live(f"{module}.scale", expect("scale", shape), out_axis=axis, run=run)
    zeros = Live(f"{module}.zero", expect("zero", shape), "offsets", out_axis=axis)
    kinds = ["W_q", "scale", "zero"]
    bias = f"{module}.bias" if f"{module}.bias" in ckpt.info else None
    if bias is not None:
        expect("bias", (how.rows,))
        kinds.append("bias")
    tensors = tuple(f"{module}.{kind}" for kind in kinds)
    size = how.group_size if how.inside else how.rows * how.columns // how.groups
    return LayerSpec(module, how.columns, how.rows, how.bits, size, (scales, zeros), bias, tensors)
