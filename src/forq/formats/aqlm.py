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

from functools import cache

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats.base import About, Format
from forq.formats.codecs.aqlm_order import order
from forq.formats.codecs.aqlm_settings import AQLMSettings, raw_settings, settings
from forq.formats.codecs.aqlm_weight import VectorWeight
from forq.layers.layer import SHARED, FiledCodes, LayerSpec, Live, Parts

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


class AQLM(Format):
    """Indices into codebooks of vectors, as aqlm's ``QuantizedLinear`` reads them."""

    about = About(
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

    def recognise(self, ckpt: Checkpoint) -> bool:
        """Whether the checkpoint holds codes of three axes beside codebooks of four."""
        for name, info in ckpt.info.items():
            module, _, kind = name.rpartition(".")
            books = ckpt.info.get(f"{module}.codebooks")
            if kind == "codes" and books is not None and f"{module}.scales" in ckpt.info:
                shaped = len(info.shape) == 3 and len(books.shape) == 4
                return shaped and raw_settings(ckpt).get("quant_method", "aqlm") == "aqlm"
        return False

    def layers(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The quantized layers by module name, checked from the headers alone.

        Raises:
            FormatError: tensors are missing, or contradict each other or the settings.
        """
        how = settings(ckpt)
        modules = sorted(name.removesuffix(".codes") for name in ckpt.info if name.endswith(".codes"))
        return {module: _spec(ckpt, module, how) for module in modules}

    def read(self, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
        """Indices, scales, codebooks and bias of a layer."""
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

    def filed_codes(self, ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
        """How the indices of a layer are stored."""
        name = f"{spec.name}.codes"
        info = ckpt.info[name]
        rows, groups, count = info.shape
        bits = settings(ckpt).bits
        return FiledCodes(
            name, info.dtype, (rows, groups * count), bits, lambda codes: codes.permute(1, 2, 0).contiguous()
        )


format = AQLM()


def _spec(ckpt: Checkpoint, module: str, how: AQLMSettings) -> LayerSpec:
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
