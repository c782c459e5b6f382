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
:func:`unlike` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats import _tiny
from forq.formats._about import About, inputs_here
from forq.formats.codecs.compressed_schemes import PACKED, WHOLE, schemes
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
from forq.layers.codes import pack as codes_in_bytes
from forq.layers.layer import FiledCodes, LayerSpec, Parts, ZeroPoints
from forq.layers.linear import Activations
from forq.layers.weight import QuantWeight, zeros_dtype

ABOUT = About(
    title="compressed-tensors",
    bits="2, 4, 8",
    moves=("scales", "codes", "zeros"),
    exported="the same file; scales are rounded to its dtype (bfloat16 at random: 1.7 of a step of 1e-3)",
    library="compressed-tensors 0.20.0, through transformers 5.23.0",
    layout=(
        "pack-quantized: weight_packed int32 (out, in·bits/32), packed along in, code + 2^(bits − 1)",
        "                weight_shape int64 (2,); weight_zero_point int32 (out·bits/32, groups) or int8 (out, groups)",
        "int-quantized:  weight int8 (out, in); weight_zero_point int8 (out, groups)",
        "weight_scale float16, bfloat16 or float32 (out, groups), or (1,); weight_g_idx int32 (in,)",
        "float-quantized, NVFP4, MXFP and sparse weights are refused; quantized inputs stay in float",
    ),
    zero_points=(
        "Stored ones count, also where the configuration says symmetric; where none are stored they are the middle."
    ),
)


def recognise(ckpt: Checkpoint) -> bool:
    """Is the checkpoint called compressed-tensors, or does it hold weights packed with their shape?"""
    said = ckpt.config.get("quantization_config")
    method = said.get("quant_method") if isinstance(said, dict) else None
    if method is not None:
        return bool(method == "compressed-tensors")
    return any(f"{name.removesuffix('_packed')}_shape" in ckpt.info for name in ckpt.info if name.endswith("_packed"))


def layers(ckpt: Checkpoint) -> dict[str, LayerSpec]:
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


def read(ckpt: Checkpoint, spec: LayerSpec) -> Parts:
    """Integers, scales and bias of one layer; no float copy of the weights is made.

    Raises:
        FormatError: weight_g_idx does not share the inputs out evenly, or a zero point is out of range.
    """
    stored = ckpt.read(_codes_name(spec))
    codes = unpack_codes(stored, spec.in_features, spec.bits) if stored.dtype == torch.int32 else codes_of_bytes(stored)
    weight = QuantWeight(codes, _zeros(ckpt, spec), spec.bits, spec.group_size, _group_of(ckpt, spec))
    bias = None if spec.bias is None else ckpt.read(spec.bias)
    scales = ckpt.read(spec.live[0].name)
    arrange = by_group if scales.dim() == 2 else partial(for_all, rows=spec.out_features)
    return Parts(weight, (scales,), bias, arrange)


def zero_points(ckpt: Checkpoint, spec: LayerSpec) -> ZeroPoints:
    """How a layer's zero points are packed; here they are unsigned, as the codes are."""
    name, top = f"{spec.name}.weight_zero_point", (1 << spec.bits) - 1
    dtype = ckpt.info[name].dtype
    packed = pack_zeros if dtype == torch.int32 else signed_zeros
    return ZeroPoints(name, (0, top), dtype, partial(packed, bits=spec.bits))


def filed_codes(ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
    """How a layer's codes are packed."""
    name = _codes_name(spec)
    dtype = ckpt.info[name].dtype
    packed = pack_codes if dtype == torch.int32 else bytes_of_codes
    return FiledCodes(name, dtype, spec.shape, spec.bits, packed)


def unlike(ckpt: Checkpoint, activations: Activations = "float") -> tuple[str, ...]:
    """What the owner of the file computes and forq does not: a sentence each."""
    how = sorted({scheme.inputs for scheme in schemes(ckpt) if scheme.inputs is not None})
    return tuple(
        f"this checkpoint's layers are to round their inputs to {inputs}; {inputs_here(activations, 'vLLM')}"
        for inputs in how
    )


def pack(weight: QuantWeight, sym: bool | None = None, layout: str = PACKED) -> dict[str, Tensor]:
    """The tensors compressed-tensors stores for a layer beside its scales and bias.

    Args:
        sym: leave the zero points out, which must be 2^(bits − 1); None: where they are. Layers of one config group are
            alike in this.
        layout: ``pack-quantized`` or ``int-quantized``.

    Raises:
        FormatError: the weight is none the format can say.
    """
    bits, middle, top = weight.bits, 1 << weight.bits - 1, (1 << weight.bits) - 1
    if bits not in (2, 4, 8) or (layout == WHOLE and bits != 8) or weight.levels is not None:
        raise FormatError(f"expected whole codes of 2, 4 or 8 bits (8 for {WHOLE}) for {layout}, found {bits} bits")
    if weight.group_of is not None:
        raise FormatError("expected consecutive groups, found act-order, which compressed-tensors no longer knows")
    sym = weight.zero == middle if sym is None else sym
    low, high = (int(value) for value in weight.zeros.aminmax())
    if weight.zeros.is_floating_point() or low < 0 or high > top or (sym and (low, high) != (middle, middle)):
        wanted = str(middle) if sym else f"0 to {top}"
        raise FormatError(f"expected whole zero points of {wanted} for compressed-tensors, found {low} to {high}")
    if layout == WHOLE:
        tensors = {"weight": bytes_of_codes(weight.codes)}
        return tensors if sym else tensors | {"weight_zero_point": signed_zeros(weight.zeros, bits)}
    shape = torch.tensor([weight.out_features, weight.in_features])
    tensors = {"weight_packed": pack_codes(weight.codes), "weight_shape": shape}
    return tensors if sym else tensors | {"weight_zero_point": pack_zeros(weight.zeros, bits)}


def dialect(least_zero: int, middle: bool) -> dict[str, Any]:
    """What an export tells :func:`pack`: zero points stand in every layer or in none."""
    return {"sym": middle}


def pack_scales(scales: Tensor) -> dict[str, Tensor]:
    """The scales (groups, out) as the file holds them."""
    return {"weight_scale": scales.t().contiguous()}


def quantization_config(bits: int, group_size: int, sym: bool = False, left: Sequence[str] = ()) -> dict[str, Any]:
    """What config.json says of a checkpoint whose layers :func:`pack` made as ``pack-quantized``.

    Args:
        group_size: inputs that share a scale; −1 is a whole row.
        sym: whether the zero points are left out.
        left: ends of names of linear layers that stay in float.
    """
    weights = {"num_bits": bits, "type": "int", "symmetric": sym, "dynamic": False}
    weights |= {"strategy": _strategy(group_size), "group_size": None if group_size == -1 else group_size}
    group: dict[str, Any] = {"targets": ["Linear"], "weights": weights, "format": PACKED}
    group |= {"input_activations": None, "output_activations": None}
    how = {"quant_method": "compressed-tensors", "format": PACKED, "quantization_status": "compressed"}
    return how | {"config_groups": {"group_0": group}, "ignore": [f"re:.*{name}$" for name in left]}


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


def _strategy(group_size: int) -> str:
    return "channel" if group_size == -1 else "group"


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "asymmetric": {"symmetric": False},
    "2-bit": {"num_bits": 2},
    "8-bit-row": {"num_bits": 8, "group_size": -1, "symmetric": False},
    "ragged": {"group_size": 20, "symmetric": False},
    "int8": {"num_bits": 8, "group_size": -1, "layout": WHOLE},
    "int8-groups": {"num_bits": 8, "symmetric": False, "layout": WHOLE},
    "int8-tensor": {"num_bits": 8, "group_size": None, "layout": WHOLE},
    "act-order": {"actorder": "group"},
}
"""Other shapes of the format, as changes of the example's settings."""


def example(folder: Path, **changes: Any) -> Path:
    """A tiny valid checkpoint: a Llama of one block with random codes, zeros and scales in bfloat16.

    Args:
        changes: of the weights' settings, and ``layout``; see :data:`VARIANTS`.

    Returns:
        ``folder``, which is made.
    """
    how = {"num_bits": 4, "group_size": _tiny.GROUP_SIZE, "symmetric": True, "layout": PACKED} | changes
    layout, size_said, sym = str(how.pop("layout")), how["group_size"], bool(how["symmetric"])
    bits, half = int(str(how["num_bits"])), 1 << int(str(how["num_bits"])) - 1

    def quantized(module: str, rows: int, columns: int) -> dict[str, Tensor]:
        draw = _tiny.generator(module)
        size = columns if size_said in (None, -1) else int(str(size_said))
        groups = -(-columns // size)
        codes = torch.randint(0, 2 * half, (rows, columns), dtype=torch.uint8, generator=draw)
        zeros = torch.randint(0, 2 * half, (groups, rows), dtype=zeros_dtype(bits), generator=draw)
        zeros = torch.full_like(zeros, half) if sym else zeros
        scales = (torch.rand(groups, rows, generator=draw) * 0.05 + 0.01) * 8 / half
        scales = scales.to(torch.bfloat16)
        packed = pack(QuantWeight(codes_in_bytes(codes, bits), zeros, bits, size), sym, layout)
        packed |= {"weight_scale": scales[0, :1]} if size_said is None else pack_scales(scales)
        if how.get("actorder"):
            plain = torch.arange(columns, dtype=torch.int32) // size
            packed["weight_g_idx"] = plain[torch.randperm(columns, generator=draw)]
        return {f"{module}.{kind}": tensor for kind, tensor in packed.items()}

    settings = quantization_config(bits, -1 if size_said is None else int(str(size_said)), sym, ["lm_head"])
    (group,) = settings["config_groups"].values()
    group["format"] = settings["format"] = layout
    group["weights"] |= {key: value for key, value in how.items() if key == "actorder"}
    if size_said is None:
        group["weights"]["strategy"] = "tensor"
    return _tiny.write(folder, quantized, {"quantization_config": settings})
