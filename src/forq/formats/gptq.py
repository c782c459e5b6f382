"""GPTQ: int32 words of packed codes, one float scale per group of inputs and output.

    qweight  int32 (in·bits/32, out)      packed along in, lowest input in the lowest bits
    qzeros   int32 (groups, out·bits/32)  packed along out; format v1 stores zero − 1
    scales   float (groups, out)
    g_idx    int32 (in,)                  group of every input; k // group_size unless act-order was on;
                                          zeros alone mean the same as no g_idx

Under ``sym`` every zero point is 2^(bits − 1), so the tensors themselves show which version wrote them: see
:mod:`forq.formats.codecs.gptq_version`. Kernels for symmetric files never read zero points: once one moved, a save says
``sym: false``. Settings stand in config.json under ``quantization_config``, or in
quantize_config.json (older files). Layout as written by AutoGPTQ and GPTQModel; the latter's
``convert_gptq_v1_to_v2_format`` has both conventions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint, Relaid
from forq.formats.base import About, ExportableFormat, Survey, inputs_here
from forq.formats.codecs import gptq_groups, gptq_write
from forq.formats.codecs.gptq_groups import group_of
from forq.formats.codecs.gptq_settings import (
    VERSION_KEYS,
    adapter_note,
    inputs,
    older_note,
    raw_settings,
    settings,
)
from forq.formats.codecs.gptq_specs import layer_specs
from forq.formats.codecs.gptq_version import version
from forq.formats.codecs.gptq_words import pack_codes, pack_zeros, unpack_codes, unpack_zeros
from forq.layers.layer import FiledCodes, LayerSpec, Parts, ZeroPoints
from forq.layers.linear import Activations
from forq.layers.weight import QuantWeight, zeros_dtype


class GPTQ(ExportableFormat):
    """Words of codes beside words of zero points, as AutoGPTQ and GPTQModel write them."""

    about = About(
        title="GPTQ",
        bits="2, 3, 4, 8",
        moves=("scales", "codes", "zeros"),
        exported="the same file; scales are rounded to its dtype (float16: about a fifth of a step of 1e-3)",
        library="gptqmodel 7.6.0",
        layout=(
            "qweight  int32 (in·bits/32, out), packed along in",
            "qzeros   int32 (groups, out·bits/32); v1 stores zero − 1",
            "scales   float16, bfloat16 or float32 (groups, out)",
            "g_idx    int32 (in,), act-order",
        ),
        zero_points=(
            "Under sym all of them are 2^(bits − 1). Where that holds for the version that checkpoint_format does not "
            "name, and not for the one it names, forq reads the other one and says so. Otherwise checkpoint_format "
            "decides, or format where that stands alone."
        ),
    )

    def recognise(self, ckpt: Checkpoint) -> bool:
        """Whether the checkpoint holds int32 (qweight, qzeros) pairs packed along the inputs."""
        for name, info in ckpt.info.items():
            module, _, kind = name.rpartition(".")
            zeros, scales = ckpt.info.get(f"{module}.qzeros"), ckpt.info.get(f"{module}.scales")
            if kind != "qweight" or zeros is None or scales is None or info.dtype != torch.int32:
                continue
            # AWQ uses the same names; it packs along the outputs, so that its qweight is as wide as its qzeros.
            packed_along_inputs = len(info.shape) == 2 and info.shape[-1:] == scales.shape[-1:]
            return packed_along_inputs and raw_settings(ckpt).get("quant_method", "gptq") == "gptq"
        return False

    def layers(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The quantized layers by module name, checked from the headers alone."""
        return layer_specs(ckpt)

    def read(self, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
        """Integers, scales and bias of a layer.

        Raises:
            FormatError: g_idx names a group that does not exist.
        """
        name = spec.name
        codes = unpack_codes(ckpt.read(f"{name}.qweight"), spec.bits)
        zeros = unpack_zeros(ckpt.read(f"{name}.qzeros"), version(ckpt).zero_offset, spec.bits)
        weight = QuantWeight(codes, zeros, spec.bits, spec.group_size, group_of(ckpt, spec))
        bias = None if spec.bias is None else ckpt.read(spec.bias)
        return Parts(weight, (ckpt.read(spec.live[0].name),), bias)

    def filed_codes(self, ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
        """How the codes of a layer are packed."""
        packed = partial(pack_codes, bits=spec.bits)
        return FiledCodes(f"{spec.name}.qweight", torch.int32, spec.shape, spec.bits, packed)

    def zero_points(self, ckpt: Checkpoint, spec: LayerSpec) -> ZeroPoints:
        """How the zero points of a layer are packed. Version 1, which stores zero − 1, cannot hold 0."""
        offset, top = version(ckpt).zero_offset, (1 << spec.bits) - 1

        def packed(x: Tensor) -> Tensor:
            return pack_zeros(x.to(zeros_dtype(spec.bits)), offset, spec.bits)

        return ZeroPoints(f"{spec.name}.qzeros", (offset, top), torch.int32, packed)

    def unlike(self, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
        """What the files say against themselves and how it is read, rounded inputs, and a left-out adapter."""
        why, asked = version(ckpt).why, inputs(ckpt)
        rounded = (
            f"this checkpoint's layers are to round their inputs to {asked}; {inputs_here(activations, 'GPTQModel')}"
        )
        return (
            *((why,) if why else ()),
            *older_note(ckpt),
            *gptq_groups.unlike(ckpt),
            *((rounded,) if asked else ()),
            *adapter_note(ckpt),
        )

    def relaid(self, ckpt: Checkpoint, moved: Mapping[str, Tensor]) -> Relaid:
        """What a save writes: once a zero point moved, the configuration no longer says that all are the middle.

        Kernels for symmetric files (Marlin, for example) never read zero points.
        """
        zeros = [name for name in moved if name.endswith(".qzeros")]
        if settings(ckpt).sym is False or not any(not torch.equal(moved[name], ckpt.read(name)) for name in zeros):
            return Relaid(moved)
        told = {**raw_settings(ckpt), "sym": False}
        told |= dict.fromkeys((key for key in VERSION_KEYS if key in told), version(ckpt).form)
        told |= {"checkpoint_format": version(ckpt).form}
        return Relaid(moved, config={**ckpt.config, "quantization_config": told})

    def pack(self, weight: QuantWeight, survey: Survey) -> dict[str, Tensor]:
        """The tensors qweight, qzeros and g_idx of a layer."""
        return gptq_write.pack(weight, _checkpoint_format(survey))

    def pack_scales(self, scales: Tensor) -> dict[str, Tensor]:
        """The scales (groups, out) as they are."""
        return {"scales": scales}

    def quantization_config(self, bits: int, group_size: int, survey: Survey) -> dict[str, object]:
        """The configuration; it names the layers of the blocks that are left in float, if there are any."""
        told = gptq_write.quantization_config(
            bits, group_size, survey.symmetric, _checkpoint_format(survey), survey.reordered
        )
        kept = [name for name in survey.left if any(map(str.isdecimal, name.split(".")))]  # inside the blocks
        return told | (gptq_write.kept_in_float(survey.written, kept) if kept else {})


format = GPTQ()


def _checkpoint_format(survey: Survey) -> str:
    """The version that can hold the zero points: version 1 stores them less one and cannot hold 0."""
    return "gptq" if survey.least > 0 else "gptq_v2"
