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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.checkpoint import read_json
from forq.errors import FormatError
from forq.formats import _tiny
from forq.formats._about import About
from forq.layers.codes import pack as codes_in_bytes
from forq.layers.codes import unpack as codes_in_order
from forq.layers.layer import FiledCodes, LayerSpec, Live, Parts, ZeroPoints
from forq.layers.weight import QuantWeight, zeros_dtype

ABOUT = About(
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

_BITS, _EIGHT = 4, 8
_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which nibble of a word each of its eight outputs lies in."""
_SCALE_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of an AWQ configuration that says how the tensors are to be read."""

    group_size: int


def recognise(ckpt: Checkpoint) -> bool:
    """Is the checkpoint called AWQ, or does it hold int32 (qweight, qzeros) pairs packed along the outputs?"""
    method = _settings_dict(ckpt).get("quant_method")
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


def settings(ckpt: Checkpoint) -> Settings:
    """How the tensors are to be read.

    Raises:
        FormatError: a setting is missing or impossible, or names another layout than ``gemm``.
    """
    raw = _settings_dict(ckpt)
    where = f"{ckpt.path}: quantization_config"
    bits, group_size = raw.get("bits", raw.get("w_bit")), raw.get("group_size", raw.get("q_group_size"))
    if type(bits) is not int or type(group_size) is not int:
        raise FormatError(f"{where}: expected whole numbers for bits and group_size, found {bits!r}, {group_size!r}")
    layout = raw.get("version") or raw.get("format") or raw.get("checkpoint_format") or "gemm"
    if not isinstance(layout, str) or layout.lower() != "gemm" or raw.get("backend") == "llm-awq":
        layout = "llm-awq" if raw.get("backend") == "llm-awq" else layout
        raise FormatError(
            f"{where}: expected version 'gemm', found {layout!r}, which packs the same tensors in another way: "
            "load the gemm version of this checkpoint"
        )
    if bits != _BITS:
        raise FormatError(
            f"{where}: expected 4 bits, found {bits}; writers do not agree on the order of AWQ's codes at other widths"
        )
    if group_size < 1 and group_size != -1:
        raise FormatError(f"{where}: expected a positive group_size or -1, found {group_size}")
    return Settings(group_size)


def layers(ckpt: Checkpoint) -> dict[str, LayerSpec]:
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


def read(ckpt: Checkpoint, spec: LayerSpec) -> Parts:
    """Integers, scales and bias of one layer; no float copy of the weights is made."""
    name = spec.name
    codes = unpack_codes(ckpt.read(f"{name}.qweight"))
    zeros = unpack_words(ckpt.read(f"{name}.qzeros")).to(zeros_dtype(_BITS))
    weight = QuantWeight(codes, zeros, _BITS, spec.group_size)
    bias = None if spec.bias is None else ckpt.read(spec.bias)
    return Parts(weight, (ckpt.read(spec.live[0].name),), bias)


def zero_points(ckpt: Checkpoint, spec: LayerSpec) -> ZeroPoints:
    """How a layer's zero points are packed."""
    return ZeroPoints(f"{spec.name}.qzeros", (0, 15), torch.int32, pack_words)


def filed_codes(ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
    """How a layer's codes are packed."""
    return FiledCodes(f"{spec.name}.qweight", torch.int32, spec.shape, spec.bits, pack_codes)


def pack(weight: QuantWeight) -> dict[str, Tensor]:
    """The tensors AWQ stores for a layer beside its scales (groups, out) and bias: qweight and qzeros.

    Raises:
        FormatError: the weight is none AWQ can say.
    """
    if weight.bits != _BITS or weight.group_of is not None or weight.levels is not None:
        order = "" if weight.group_of is None else " in act-order"
        raise FormatError(f"expected codes of 4 bits in consecutive groups for AWQ, found {weight.bits} bits{order}")
    columns, rows = weight.in_features, weight.out_features
    if rows % _EIGHT or columns % weight.group_size:
        raise FormatError(
            f"expected outputs in multiples of 8 and whole groups of inputs for AWQ, found {rows} outputs and "
            f"{columns} inputs in groups of {weight.group_size}; leave this layer in float"
        )
    low, high = (int(value) for value in weight.zeros.aminmax())
    if weight.zeros.is_floating_point() or low < 0 or high > 15:
        raise FormatError(f"expected whole zero points from 0 to 15 for AWQ, found {low} to {high}")
    return {"qweight": pack_codes(weight.codes), "qzeros": pack_words(weight.zeros)}


def pack_scales(scales: Tensor) -> dict[str, Tensor]:
    """The scales (groups, out) as the file holds them."""
    return {"scales": scales}


def quantization_config(bits: int, group_size: int, sym: bool = False, left: Sequence[str] = ()) -> dict[str, Any]:
    """What config.json says of a checkpoint whose layers :func:`pack` made.

    Args:
        bits: 4.
        group_size: inputs that share a scale; −1 is a whole row.
        sym: whether all zero points are 8; AWQ stores them all the same.
        left: names, or ends of names, of linear layers that stay in float.
    """
    how = {"quant_method": "awq", "bits": bits, "group_size": group_size, "zero_point": True, "version": "gemm"}
    return how | {"modules_to_not_convert": list(left) or None}


def unpack_words(words: Tensor) -> Tensor:
    """int32 (n, out/8) → uint8 (n, out), a code a byte, the outputs in order."""
    halves = words.contiguous().view(torch.uint8)
    apart = torch.stack((halves & 15, halves >> 4), dim=-1).view(len(words), -1, _EIGHT)
    return apart[..., _PLACES].view(len(words), -1)


def pack_words(whole: Tensor) -> Tensor:
    """The inverse: small whole numbers (n, out) → int32 (n, out/8)."""
    apart = torch.empty(len(whole), whole.shape[1] // _EIGHT, _EIGHT, dtype=torch.uint8)
    apart[..., _PLACES] = whole.view(len(whole), -1, _EIGHT).to(torch.uint8)
    halves = apart[..., 0::2] | apart[..., 1::2] << 4
    return halves.contiguous().view(torch.int32).view(len(whole), -1)


def unpack_codes(qweight: Tensor) -> Tensor:
    """int32 (in, out/8) → packed codes, uint8 (out, in/2)."""
    return codes_in_bytes(unpack_words(qweight).t().contiguous(), _BITS)


def pack_codes(codes: Tensor) -> Tensor:
    """The inverse: packed codes → int32 (in, out/8)."""
    return pack_words(codes_in_order(codes, _BITS).t().contiguous())


def _settings_dict(ckpt: Checkpoint) -> dict[str, Any]:
    found = ckpt.config.get("quantization_config")
    if isinstance(found, dict):
        return found
    older = ckpt.folder / "quant_config.json"
    return read_json(older) if older.is_file() else {}


def _spec(ckpt: Checkpoint, module: str, how: Settings) -> LayerSpec:
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
    rows = words * _EIGHT
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
    return LayerSpec(module, columns, rows, _BITS, group_size, (scales,), bias, tensors, f"{module}.qzeros")


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "row": {"group_size": -1},
    "mixed": {"modules_to_not_convert": ["o_proj", "lm_head"]},
}
"""Other shapes of the format, as changes of the example's settings."""


def example(folder: Path, **changes: Any) -> Path:
    """A tiny valid checkpoint: a Llama of one block with random codes, zeros and scales.

    Args:
        changes: of the settings, see :data:`VARIANTS`.

    Returns:
        ``folder``, which is made.
    """
    how = quantization_config(_BITS, _tiny.GROUP_SIZE) | changes

    def quantized(module: str, rows: int, columns: int) -> dict[str, Tensor]:
        draw = _tiny.generator(module)
        if any(part in module for part in how["modules_to_not_convert"] or ()):
            return {f"{module}.weight": (torch.randn(rows, columns, generator=draw) * 0.1).to(torch.float16)}
        size = columns if how["group_size"] == -1 else int(how["group_size"])
        codes = torch.randint(0, 16, (rows, columns), dtype=torch.uint8, generator=draw)
        zeros = torch.randint(0, 16, (columns // size, rows), dtype=zeros_dtype(_BITS), generator=draw)
        scales = (torch.rand(columns // size, rows, generator=draw) * 0.05 + 0.01).to(torch.float16)
        packed = pack(QuantWeight(codes_in_bytes(codes, _BITS), zeros, _BITS, size)) | pack_scales(scales)
        return {f"{module}.{kind}": tensor for kind, tensor in packed.items()}

    return _tiny.write(folder, quantized, {"quantization_config": how})
