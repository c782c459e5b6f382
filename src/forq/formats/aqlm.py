"""AQLM: every eight inputs of a row are a sum of vectors out of codebooks, and a row has one scale.

    codebooks  float (C, 2^b, out group, in group)
    codes      int8 or int16 (out / out group, in / in group, C); indices, kept as signed numbers modulo 2^b
    scales     float (out / out group, 1, 1, 1)

    w[o, i … i + 7] = scale[o] · Σ_c codebook[c, code[o, i / 8, c]]

Settings stand in config.json under ``quantization_config``. Layout as read by aqlm's ``QuantizedLinear``; method of
arXiv 2401.06118. Where codes move, the coordinate is the rank of a vector in an order of the file's codebook
(:mod:`forq.formats.codecs.aqlm_order`): one cell is the next vector, a near one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats import _tiny
from forq.formats._about import About
from forq.formats.codecs.aqlm_order import order
from forq.formats.codecs.aqlm_weight import VectorWeight
from forq.layers.layer import SHARED, FiledCodes, LayerSpec, Live, Parts

ABOUT = About(
    title="AQLM",
    bits="C codebooks of 2^b vectors: 1x16, 2x8 and others",
    moves=("scales", "codebooks", "codes"),
    exported="the same file; scales and codebooks are rounded to its dtype",
    library="aqlm 1.1.7",
    layout=(
        "codebooks  float16, bfloat16 or float32 (C, 2^b, out group, in group)",
        "codes      int8 (b ≤ 8) or int16 (out / out group, in / in group, C), modulo 2^b",
        "scales     float (out / out group, 1, 1, 1)",
        "codes move by rank, in an order of the file's vectors in which neighbours lie near each other",
    ),
)

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
_DEFAULTS = {"in_group_size": 8, "out_group_size": 1, "num_codebooks": 1, "nbits_per_codebook": 16}
_MOST = {"in_group_size": 1 << 16, "out_group_size": 1 << 16, "num_codebooks": 1 << 10, "nbits_per_codebook": 16}


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of an AQLM configuration that says how the tensors are to be read."""

    in_group: int
    out_group: int
    codebooks: int
    bits: int


def recognise(ckpt: Checkpoint) -> bool:
    """Does the checkpoint hold codes of three axes beside codebooks of four?"""
    for name, info in ckpt.info.items():
        module, _, kind = name.rpartition(".")
        books = ckpt.info.get(f"{module}.codebooks")
        if kind == "codes" and books is not None and f"{module}.scales" in ckpt.info:
            held = len(info.shape) == 3 and len(books.shape) == 4
            return held and _settings_dict(ckpt).get("quant_method", "aqlm") == "aqlm"
    return False


def settings(ckpt: Checkpoint) -> Settings:
    """How the tensors are to be read; what is not said is as the library has it.

    Raises:
        FormatError: a setting is impossible.
    """
    raw, found = _settings_dict(ckpt), []
    for name, usual in _DEFAULTS.items():
        value = raw.get(name, usual)
        if type(value) is not int or not 1 <= value <= _MOST[name]:
            raise FormatError(
                f"{ckpt.path}: quantization_config.{name}: expected 1 … {_MOST[name]}, found {value!r:.80}; "
                "use the quantization_config this file was made with"
            )
        found.append(value)
    return Settings(*found)


def layers(ckpt: Checkpoint) -> dict[str, LayerSpec]:
    """The quantized layers by module name, checked from the headers alone.

    Raises:
        FormatError: tensors are missing, or contradict each other or the settings.
    """
    how = settings(ckpt)
    modules = sorted(name.removesuffix(".codes") for name in ckpt.info if name.endswith(".codes"))
    return {module: _spec(ckpt, module, how) for module in modules}


def read(ckpt: Checkpoint, spec: LayerSpec) -> Parts:
    """Indices, scales, codebooks and bias of one layer; no float copy of the weights is made."""
    how = settings(ckpt)
    codes = ckpt.read(f"{spec.name}.codes").permute(2, 0, 1).contiguous()

    @cache
    def orders(device: torch.device) -> tuple[Tensor, Tensor]:
        books = ckpt.read(f"{spec.name}.codebooks").flatten(2).double().numpy()
        ranked = torch.stack([torch.from_numpy(order(book)) for book in books])
        return ranked.int().to(device), ranked.argsort(1).int().to(device)

    weight = VectorWeight(codes, how.bits, how.in_group, how.out_group, orders)
    bias = None if spec.bias is None else ckpt.read(spec.bias)
    return Parts(weight, tuple(ckpt.read(live.name) for live in spec.live), bias)


def filed_codes(ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
    """How a layer's indices are kept, and how wide they are."""
    name = f"{spec.name}.codes"
    info = ckpt.info[name]
    rows, groups, count = info.shape
    bits = settings(ckpt).bits
    return FiledCodes(name, info.dtype, (rows, groups * count), bits, lambda codes: codes.permute(1, 2, 0).contiguous())


def _settings_dict(ckpt: Checkpoint) -> dict[str, Any]:
    found = ckpt.config.get("quantization_config")
    return found if isinstance(found, dict) else {}


def _spec(ckpt: Checkpoint, module: str, how: Settings) -> LayerSpec:
    def expect(kind: str, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...] = _FLOATS) -> torch.dtype:
        info = ckpt.info.get(f"{module}.{kind}")
        if info is None:
            raise FormatError(f"{module}: expected a tensor {kind!r} beside codes, found none; the file is damaged")
        if info.shape != shape or info.dtype not in dtypes:
            raise FormatError(
                f"{module}.{kind}: expected {' or '.join(map(str, dtypes))} of shape {shape} for {how.codebooks} "
                f"codebooks of {how.bits} bits, found {info.dtype} of shape {info.shape}; the configuration "
                "contradicts the tensors: use the quantization_config this file was made with"
            )
        return info.dtype

    shape = ckpt.info[f"{module}.codes"].shape
    if len(shape) != 3 or 0 in shape:
        raise FormatError(
            f"{module}.codes: expected (out / {how.out_group}, in / {how.in_group}, {how.codebooks}), found {shape}"
        )
    rows, columns = shape[0] * how.out_group, shape[1] * how.in_group
    expect("codes", (shape[0], shape[1], how.codebooks), (torch.int8 if how.bits <= 8 else torch.int16,))
    scales = Live(f"{module}.scales", expect("scales", (shape[0], 1, 1, 1)))
    vectors = expect("codebooks", (how.codebooks, 1 << how.bits, how.out_group, how.in_group))
    books = Live(f"{module}.codebooks", vectors, "codebooks", out_axis=SHARED)
    bias = f"{module}.bias" if f"{module}.bias" in ckpt.info else None
    if bias is not None:
        expect("bias", (rows,))
    kinds = ("codes", "codebooks", "scales") + (() if bias is None else ("bias",))
    bits = -(-how.codebooks * how.bits // (how.in_group * how.out_group))
    tensors = tuple(f"{module}.{kind}" for kind in kinds)
    return LayerSpec(module, columns, rows, bits, columns, (scales, books), bias, tensors)


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "wide-index": {"num_codebooks": 1, "nbits_per_codebook": 10},
    "3x5-in-16-float32": {"num_codebooks": 3, "nbits_per_codebook": 5, "in_group_size": 16, "dtype": torch.float32},
    "out-2-bfloat16": {"in_group_size": 4, "out_group_size": 2, "nbits_per_codebook": 6, "dtype": torch.bfloat16},
}
"""Other shapes of the format, as changes of the example's settings; ``dtype`` is of scales and codebooks."""


def example(folder: Path, **changes: Any) -> Path:
    """A tiny valid checkpoint: a Llama of one block with random indices, vectors and scales.

    Args:
        changes: of the settings, see :data:`VARIANTS`.

    Returns:
        ``folder``, which is made.
    """
    how: dict[str, Any] = {"quant_method": "aqlm", **_DEFAULTS, "num_codebooks": 2, "nbits_per_codebook": 8, **changes}
    how["linear_weights_not_to_quantize"] = ["lm_head.weight"]
    dtype: torch.dtype = how.pop("dtype", torch.float16)
    count, bits = how["num_codebooks"], how["nbits_per_codebook"]
    in_group, out_group = how["in_group_size"], how["out_group_size"]

    def quantized(module: str, rows: int, columns: int) -> dict[str, Tensor]:
        draw = _tiny.generator(module)
        shape, half = (rows // out_group, columns // in_group, count), 1 << bits - 1
        codes = torch.randint(-half, half, shape, generator=draw)
        books = torch.randn(count, 1 << bits, out_group, in_group, generator=draw)
        scales = torch.rand(rows // out_group, 1, 1, 1, generator=draw) * 0.1 + 0.05
        return {
            f"{module}.codes": codes.to(torch.int8 if bits <= 8 else torch.int16),
            f"{module}.codebooks": books.to(dtype),
            f"{module}.scales": scales.to(dtype),
        }

    return _tiny.write(folder, quantized, {"quantization_config": how})
