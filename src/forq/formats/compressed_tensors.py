"""compressed-tensors, the format of vLLM and LLM Compressor: integer weights, in words or bytes, beside their scales.

    pack-quantized, 2, 4 or 8 bits
        weight_packed      int32 (out, ⌈in·bits/32⌉)     packed along in, lowest input in the lowest bits
        weight_shape       int64 (2,)                    out, in
        weight_zero_point  int32 (⌈out·bits/32⌉, groups)  packed along out; or int8 (out, groups), signed
        weight_g_idx       int32 (in,)                   group of every input (older files, actorder "group")
    int-quantized, 8 bits
        weight             int8 (out, in)
        weight_zero_point  int8 (out, groups)
    both
        weight_scale       float (out, groups), or (1,) where one serves the matrix

    w[o, i] = (q[o, i] − z[o, g]) · scale[o, g]   with q and z signed; a word holds q + 2^(bits − 1), and so does forq

Symmetric weights have no zero points. Settings stand in config.json, see :mod:`forq.formats.codecs.compressed_schemes`.
Layout as written by compressed-tensors 0.20. Where the configuration quantizes inputs too they stay in float here;
:meth:`CompressedTensors.unlike` says so.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats.base import About, ExportableFormat, Survey, inputs_here
from forq.formats.codecs import compressed_write
from forq.formats.codecs.compressed_schemes import PACKED, WHOLE, inputs_alone, schemes
from forq.formats.codecs.compressed_specs import layer_spec
from forq.formats.codecs.compressed_words import (
    bytes_of_codes,
    codes_of_bytes,
    pack_codes,
    pack_zeros,
    signed_zeros,
    unpack_codes,
    unpack_zeros,
)
from forq.layers.layer import FiledCodes, LayerSpec, Parts, ZeroPoints
from forq.layers.linear import Activations
from forq.layers.weight import QuantWeight, zeros_dtype


class CompressedTensors(ExportableFormat):
    """Packed words of codes, or signed codes a byte each; several config groups may differ."""

    about = About(
        title="compressed-tensors",
        bits="2, 4, 8",
        moves=("scales", "codes", "zeros"),
        exported="the same file; scales are rounded to its dtype (bfloat16 at random: 1.7 of a step of 1e-3)",
        library="compressed-tensors 0.20.0, through transformers 5.23.0",
        layout=(
            "pack-quantized: weight_packed int32 (out, in·bits/32), packed along in, code + 2^(bits − 1)",
            "                weight_shape int64 (2,); "
            "weight_zero_point int32 (out·bits/32, groups) or int8 (out, groups)",
            "int-quantized:  weight int8 (out, in); weight_zero_point int8 (out, groups)",
            "weight_scale float16, bfloat16 or float32 (out, groups), or (1,); weight_g_idx int32 (in,)",
            "float-quantized, NVFP4, MXFP and sparse weights are refused; quantized inputs stay in float",
        ),
        zero_points=(
            "Stored ones count, also where the configuration says symmetric; where none are stored they are the middle."
        ),
    )

    def recognise(self, ckpt: Checkpoint) -> bool:
        """Whether the checkpoint says compressed-tensors, or holds packed weights beside their shape."""
        declared = ckpt.config.get("quantization_config")
        method = declared.get("quant_method") if isinstance(declared, dict) else None
        if method is not None:
            return bool(method == "compressed-tensors")
        return any(
            f"{name.removesuffix('_packed')}_shape" in ckpt.info for name in ckpt.info if name.endswith("_packed")
        )

    def layers(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The quantized layers by module name, checked from the headers and the two numbers of each ``weight_shape``.

        Raises:
            FormatError: tensors are missing, or contradict each other or every config group.
        """
        found = schemes(ckpt)
        modules = {name.removesuffix(".weight_packed"): PACKED for name in ckpt.info if name.endswith(".weight_packed")}
        for name, info in ckpt.info.items():
            module = name.removesuffix(".weight")
            if module != name and info.dtype == torch.int8 and f"{module}.weight_scale" in ckpt.info:
                modules[module] = WHOLE
        if not modules:
            raise FormatError(
                f"{ckpt.path}: expected tensors weight_packed, or weight of int8, as config_groups say, found none"
            )
        return {module: layer_spec(ckpt, module, layout, found) for module, layout in sorted(modules.items())}

    def read(self, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
        """Integers, scales and bias of a layer.

        Raises:
            FormatError: weight_g_idx does not share the inputs out evenly, or a zero point is out of range.
        """
        stored = ckpt.read(_codes_name(spec))
        codes = (
            unpack_codes(stored, spec.in_features, spec.bits) if stored.dtype == torch.int32 else codes_of_bytes(stored)
        )
        weight = QuantWeight(codes, _zeros(ckpt, spec), spec.bits, spec.group_size, _group_of(ckpt, spec))
        bias = None if spec.bias is None else ckpt.read(spec.bias)
        scales = ckpt.read(spec.live[0].name)
        arrange = by_group if scales.dim() == 2 else partial(for_all, rows=spec.out_features)
        return Parts(weight, (scales,), bias, arrange)

    def filed_codes(self, ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
        """How the codes of a layer are packed."""
        name = _codes_name(spec)
        dtype = ckpt.info[name].dtype
        packed = pack_codes if dtype == torch.int32 else bytes_of_codes
        return FiledCodes(name, dtype, spec.shape, spec.bits, packed)

    def zero_points(self, ckpt: Checkpoint, spec: LayerSpec) -> ZeroPoints | None:
        """How the zero points of a layer are packed; forq counts them unsigned, as the codes."""
        if spec.zeros is None:
            return None
        name, top = f"{spec.name}.weight_zero_point", (1 << spec.bits) - 1
        dtype = ckpt.info[name].dtype
        packed = pack_zeros if dtype == torch.int32 else signed_zeros
        return ZeroPoints(name, (0, top), dtype, partial(packed, bits=spec.bits))

    def unlike(self, ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
        """The inputs that the configuration quantizes and forq does not."""
        how = sorted({scheme.inputs for scheme in schemes(ckpt) if scheme.inputs is not None})
        alone = (
            f"this checkpoint rounds the inputs of {told}; vLLM does, and forq does not" for told in inputs_alone(ckpt)
        )
        return (
            *(
                f"this checkpoint's layers are to round their inputs to {inputs}; {inputs_here(activations, 'vLLM')}"
                for inputs in how
            ),
            *alone,
        )

    def pack(self, weight: QuantWeight, survey: Survey) -> dict[str, Tensor]:
        """The tensors of a layer as ``pack-quantized``; every layer stores its zero points, or none does."""
        return compressed_write.pack(weight, survey.symmetric)

    def pack_scales(self, scales: Tensor) -> dict[str, Tensor]:
        """The scales (groups, out) as (out, groups)."""
        return {"weight_scale": scales.t().contiguous()}

    def quantization_config(self, bits: int, group_size: int, survey: Survey) -> dict[str, object]:
        """The configuration, with one config group for all layers."""
        return compressed_write.quantization_config(bits, group_size, survey.symmetric, survey.left)


format = CompressedTensors()


def by_group(scales: Tensor) -> Tensor:
    """(out, groups) → (groups, out), a view."""
    return scales.t()


def for_all(scales: Tensor, rows: int) -> Tensor:
    """(1,) → (1, out), a view."""
    return scales.expand(1, rows)


def _codes_name(spec: LayerSpec) -> str:
    return spec.tensors[0]


def _zeros(ckpt: Checkpoint, spec: LayerSpec) -> Tensor:
    """Zero points (groups, out), unsigned as the codes are."""
    name, middle = f"{spec.name}.weight_zero_point", 1 << spec.bits - 1
    groups = -(-spec.in_features // spec.group_size)
    if name not in spec.tensors:
        return torch.full((groups, spec.out_features), middle, dtype=zeros_dtype(spec.bits))
    stored = ckpt.read(name)
    if stored.dtype == torch.int32:
        return unpack_zeros(stored, spec.out_features, spec.bits)
    zeros = stored.to(torch.int16) + middle
    if int(zeros.min()) < 0 or int(zeros.max()) >= 2 * middle:
        raise FormatError(f"{name}: expected {-middle} … {middle - 1}, found {int(stored.min())} … {int(stored.max())}")
    whole = zeros.t() if zeros.dim() == 2 else zeros.expand(groups, spec.out_features)
    return whole.to(zeros_dtype(spec.bits)).contiguous()


def _group_of(ckpt: Checkpoint, spec: LayerSpec) -> Tensor | None:
    """The file's weight_g_idx where it says more than consecutive groups do, else None."""
    name = f"{spec.name}.weight_g_idx"
    if name not in spec.tensors:
        return None
    group_of = ckpt.read(name)
    if bool((group_of == -1).any()):  # a place that was never filled: the owner ignores it
        return None
    plain = torch.arange(spec.in_features, dtype=torch.int32) // spec.group_size
    if not torch.equal(group_of.sort().values, plain):
        raise FormatError(
            f"{name}: expected {spec.group_size} inputs in every group from 0 to {int(plain[-1])}, found "
            f"{int(group_of.min())} … {int(group_of.max())} shared out otherwise"
        )
    return None if torch.equal(group_of, plain) else group_of
