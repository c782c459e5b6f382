"""AWQ: int32 words of eight 4-bit codes along the outputs, in an order of their own, and a scale per group and output.

    qweight  int32 (in, out/8)       nibble p of a word, from the lowest, holds output 0 2 4 6 1 3 5 7 [p] of its eight
    qzeros   int32 (groups, out/8)   zero points as they are, in the same order
    scales   float (groups, out)

    w[o, i] = (code[o, i] − zero[g, o]) · scale[g, o],   g = i // group_size

Settings stand in config.json under ``quantization_config``, or in quant_config.json (older files, ``w_bit`` and
``q_group_size``). This is the layout called ``gemm``; the other layouts of AWQ (``gemv``, ``gemv_fast``, ``marlin``,
llm-awq's own) name their tensors alike and are refused by their name. Layout as written by AutoAWQ and GPTQModel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats.base import About, ExportableFormat, Survey
from forq.formats.codecs import awq_write
from forq.formats.codecs.awq_settings import BITS, AWQSettings, raw_settings, settings
from forq.formats.codecs.awq_words import EIGHT, pack_codes, pack_words, unpack_codes, unpack_words
from forq.layers.layer import FiledCodes, LayerSpec, Live, Parts, ZeroPoints
from forq.layers.weight import QuantWeight, zeros_dtype

_SCALE_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


class AWQ(ExportableFormat):
    """The layout ``gemm``, as AutoAWQ and GPTQModel write it."""

    about = About(
        title="AWQ",
        bits="4",
        moves=("scales", "codes", "zeros"),
        exported="the same file; scales are rounded to its dtype (float16: about a fifth of a step of 1e-3)",
        library="gptqmodel 7.6.0, through transformers 5.23.0",
        layout=(
            "qweight  int32 (in, out/8), packed along out in the order 0 2 4 6 1 3 5 7",
            "qzeros   int32 (groups, out/8), in the same order",
            "scales   float16, bfloat16 or float32 (groups, out)",
            "version gemm; gemv, gemv_fast, marlin and llm-awq are refused",
        ),
        zero_points="The stored ones count, whatever zero_point says, as in AutoAWQ's own kernels.",
    )

    def recognise(self, ckpt: Checkpoint) -> bool:
        """Whether the checkpoint says AWQ, or holds int32 (qweight, qzeros) pairs packed along the outputs."""
        method = raw_settings(ckpt).get("quant_method")
        if method is not None:
            return bool(method == "awq")
        for name, info in ckpt.info.items():
            module, _, kind = name.rpartition(".")
            zeros, scales = ckpt.info.get(f"{module}.qzeros"), ckpt.info.get(f"{module}.scales")
            if kind != "qweight" or zeros is None or scales is None or info.dtype != torch.int32:
                continue
            # GPTQ uses the same names; it packs along the inputs, so that its qweight is as wide as its scales.
            return len(info.shape) == 2 and info.shape[-1:] == zeros.shape[-1:] != scales.shape[-1:]
        return False

    def layers(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The quantized layers by module name, checked from the headers alone.

        Raises:
            FormatError: tensors are missing, or contradict each other or the settings.
        """
        how = settings(ckpt)
        modules = sorted(name.removesuffix(".qweight") for name in ckpt.info if name.endswith(".qweight"))
        if not modules:
            raise FormatError(f"{ckpt.path}: expected tensors called qweight, as quant_method 'awq' says, found none")
        if scaled := [name for name in ckpt.info if name.endswith(".act.scales")]:
            raise FormatError(
                f"{scaled[0]}: expected activations without scales of their own, found some; AWQ writes them for a few "
                "families (Falcon, MPT, GPT-NeoX, BLOOM, StarCoder2), and forq does not compute them"
            )
        return {module: _spec(ckpt, module, how) for module in modules}

    def read(self, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
        """Integers, scales and bias of a layer."""
        name = spec.name
        codes = unpack_codes(ckpt.read(f"{name}.qweight"))
        zeros = unpack_words(ckpt.read(f"{name}.qzeros")).to(zeros_dtype(BITS))
        weight = QuantWeight(codes, zeros, BITS, spec.group_size)
        bias = None if spec.bias is None else ckpt.read(spec.bias)
        return Parts(weight, (ckpt.read(spec.live[0].name),), bias)

    def filed_codes(self, ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
        """How the codes of a layer are packed."""
        return FiledCodes(f"{spec.name}.qweight", torch.int32, spec.shape, spec.bits, pack_codes)

    def zero_points(self, ckpt: Checkpoint, spec: LayerSpec) -> ZeroPoints:
        """How the zero points of a layer are packed."""
        return ZeroPoints(f"{spec.name}.qzeros", (0, 15), torch.int32, pack_words)

    def pack(self, weight: QuantWeight, survey: Survey) -> dict[str, Tensor]:
        """The tensors qweight and qzeros of a layer."""
        return awq_write.pack(weight)

    def pack_scales(self, scales: Tensor) -> dict[str, Tensor]:
        """The scales (groups, out) as they are."""
        return {"scales": scales}

    def quantization_config(self, bits: int, group_size: int, survey: Survey) -> dict[str, object]:
        """The configuration; it is the same for symmetric and other zero points."""
        return awq_write.quantization_config(group_size, survey.left)


format = AWQ()


def _spec(ckpt: Checkpoint, module: str, how: AWQSettings) -> LayerSpec:
    def expect(kind: str, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...] = (torch.int32,)) -> torch.dtype:
        info = ckpt.info.get(f"{module}.{kind}")
        if info is None:
            raise FormatError(f"{module}: expected a tensor {kind!r} beside qweight, found none; the file is damaged")
        if info.shape != shape or info.dtype not in dtypes:
            raise FormatError(
                f"{module}.{kind}: expected {' or '.join(map(str, dtypes))} of shape {shape} for 4 bits and group_size "
                f"{how.group_size}, found {info.dtype} of shape {info.shape}; the configuration contradicts the "
                "tensors, or they are of another layout than gemm"
            )
        return info.dtype

    packed = ckpt.info[f"{module}.qweight"].shape
    if len(packed) != 2 or 0 in packed:
        raise FormatError(f"{module}.qweight: expected a matrix, found shape {packed}")
    columns, words = packed
    rows = words * EIGHT
    group_size = columns if how.group_size == -1 else how.group_size
    if columns % 2 or columns % group_size:
        raise FormatError(
            f"{module}: expected an even number of inputs, in groups of {group_size}, found {columns}; the group_size "
            "is not the one this file was made with, or its layout is not gemm"
        )
    groups = columns // group_size
    expect("qweight", packed)
    expect("qzeros", (groups, words))
    dtype = expect("scales", (groups, rows), _SCALE_DTYPES)
    kinds = ["qweight", "qzeros", "scales"]
    bias = f"{module}.bias" if f"{module}.bias" in ckpt.info else None
    if bias is not None:
        expect("bias", (rows,), _SCALE_DTYPES)
        kinds.append("bias")
    tensors = tuple(f"{module}.{kind}" for kind in kinds)
    scales = Live(f"{module}.scales", dtype, out_axis=1)
    return LayerSpec(module, columns, rows, BITS, group_size, (scales,), bias, tensors, f"{module}.qzeros")
