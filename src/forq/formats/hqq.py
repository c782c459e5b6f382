"""HQQ: w = (code − zero) · scale with both continuous, a group a row of a reshaped matrix, in a file of torch.save.

    W_q    uint8 (words, columns), int32 at 3 bits; see :mod:`forq.formats.codecs.hqq_bits`
    scale  float (groups, 1) where axis is 1: a group is so many weights that follow each other
    zero   the same;  (1, groups) where axis is 0: a group is every groups-th weight

Beside them stand plain values (nbits, group_size, shape, axis, packing, …). The folder has a config.json and
``qmodel.pt``, which is read without running anything of it (:mod:`forq.checkpoints.containers.torch_save`). Layout as written
by hqq's ``save_quantized``. Groups inside of rows become a :class:`QuantWeight`; others a weight of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats import _tiny
from forq.formats._about import About
from forq.formats.codecs.hqq_bits import pack as into_words
from forq.formats.codecs.hqq_bits import unpack, words
from forq.formats.codecs.hqq_settings import Settings, settings
from forq.layers.codes import PackedCodes, pack, parts
from forq.layers.codes import unpack as codes_of
from forq.layers.layer import SHARED, FiledCodes, LayerSpec, Live, Parts
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight

ABOUT = About(
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

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True, eq=False)
class StrewnWeight(PackedCodes):
    """Codes whose groups are no part of one row: weight f of the matrix belongs to group f mod m, or f div g.

    Attributes:
        codes: uint8, packed as those of a :class:`QuantWeight`.
        bits: of one code.
        groups: m.
        run: g, weights of a group that follow each other; 0: it takes every m-th.
    """

    codes: Tensor
    bits: int
    groups: int
    run: int

    @property
    def group_size(self) -> int:
        return self.out_features * self.in_features // self.groups

    def to(self, device: torch.device) -> StrewnWeight:
        """The same weight on another device."""
        return self.with_codes(self.codes.to(device))

    def with_codes(self, codes: Tensor) -> StrewnWeight:
        """The same weight with other codes."""
        return replace(self, codes=codes)

    def fill(self, live: Sequence[Tensor], start: int, stop: int, out: Tensor, scratch: Scratch) -> None:
        """Rows ``start … stop − 1``: see :class:`forq.layers.weight.RowWeight`."""
        columns = self.in_features
        out.copy_(codes_of(self.codes[start:stop], self.bits))
        scales, zeros = (tensor.view(-1) for tensor in live)
        if not self.run and self.groups % columns == 0:
            # Whole rows of scales, one after the other and again.
            row = torch.arange(start, stop, device=out.device) % (self.groups // columns)
            out.sub_(zeros.view(-1, columns)[row]).mul_(scales.view(-1, columns)[row])
            return
        place = torch.arange(start * columns, stop * columns, device=out.device)
        group = place // self.run if self.run else place % self.groups
        out.view(-1).sub_(zeros[group]).mul_(scales[group])


def recognise(ckpt: Checkpoint) -> bool:
    """Does the file hold W_q beside plain values that say its bits?"""
    return any(
        name.endswith(".W_q") and f"{name.removesuffix('W_q')}nbits" in ckpt.contents.values for name in ckpt.info
    )


def layers(ckpt: Checkpoint) -> dict[str, LayerSpec]:
    """The quantized layers by module name, checked from the index alone.

    Raises:
        FormatError: tensors or values are missing, contradict each other, or are of a kind that is not read.
    """
    modules = sorted(name.removesuffix(".W_q") for name in ckpt.info if name.endswith(".W_q"))
    return {module: _spec(ckpt, module) for module in modules}


def read(ckpt: Checkpoint, spec: LayerSpec) -> Parts:
    """Integers, scales, zero points and bias of one layer; no float copy of the weights is made."""
    how = settings(ckpt, spec.name)
    whole = unpack(ckpt.read(f"{spec.name}.W_q"), how.bits, how.tall).reshape(how.rows, how.columns)
    codes = pack(whole, how.bits)
    live = tuple(ckpt.read(one.name) for one in spec.live)
    bias = None if spec.bias is None else ckpt.read(spec.bias)
    if not how.inside:
        run = how.group_size if how.axis == 1 else 0
        return Parts(StrewnWeight(codes, how.bits, how.groups, run), live, bias)
    shape = (how.columns // how.group_size, how.rows)
    weight = QuantWeight(codes, torch.zeros(shape), how.bits, how.group_size)

    def by_group(tensor: Tensor) -> Tensor:
        return tensor.view(shape[1], shape[0]).t()

    return Parts(weight, live, bias, by_group)


def filed_codes(ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
    """How a layer's codes are packed."""
    how, name = settings(ckpt, spec.name), f"{spec.name}.W_q"

    def packed(codes: Tensor) -> Tensor:
        return into_words(codes_of(codes, how.bits).reshape(how.tall, how.wide), how.bits)

    return FiledCodes(name, ckpt.info[name].dtype, spec.shape, spec.bits, packed)


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
    scales = Live(f"{module}.scale", expect("scale", shape), out_axis=axis)
    zeros = Live(f"{module}.zero", expect("zero", shape), "offsets", out_axis=axis)
    kinds = ["W_q", "scale", "zero"]
    bias = f"{module}.bias" if f"{module}.bias" in ckpt.info else None
    if bias is not None:
        expect("bias", (how.rows,))
        kinds.append("bias")
    tensors = tuple(f"{module}.{kind}" for kind in kinds)
    size = how.group_size if how.inside else how.rows * how.columns // how.groups
    return LayerSpec(module, how.columns, how.rows, how.bits, size, (scales, zeros), bias, tensors)


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "axis-0": {"axis": 0},
    "2bit-float32": {"nbits": 2, "dtype": torch.float32},
    "3bit": {"nbits": 3},
    "8bit-bfloat16": {"nbits": 8, "dtype": torch.bfloat16},
    "across-rows": {"group_size": 96},
}
"""Other shapes of the format, as changes of the example's settings; ``dtype`` is of scales and zero points."""


def example(folder: Path, **changes: Any) -> Path:
    """A tiny valid checkpoint: a Llama of one block with random codes, zeros and scales.

    Args:
        changes: of the settings, see :data:`VARIANTS`.

    Returns:
        ``folder``, which is made.
    """
    how: dict[str, Any] = {"nbits": 4, "group_size": _tiny.GROUP_SIZE, "axis": 1, "dtype": torch.float16, **changes}
    bits, axis, dtype = how["nbits"], how["axis"], how["dtype"]
    values: dict[str, dict[str, Any]] = {}

    def quantized(module: str, rows: int, columns: int) -> dict[str, Tensor]:
        draw = _tiny.generator(module)
        size = how["group_size"] if rows * columns % how["group_size"] == 0 else _tiny.GROUP_SIZE
        shape = Settings(rows, columns, bits, axis, size)
        whole = torch.randint(0, 1 << bits, (shape.tall, shape.wide), dtype=torch.uint8, generator=draw)
        by = (shape.groups, 1) if axis == 1 else (1, shape.groups)
        packing = "3bit_32" if bits == 3 else f"{bits}bit_u8"
        values[module] = {"nbits": bits, "group_size": size, "shape": torch.Size((rows, columns)), "axis": axis}
        values[module] |= {"packing": packing, "view_as_float": False, "quant_scale": False, "quant_zero": False}
        values[module] |= {"compute_dtype": dtype, "offload_meta": False, "stores_quant_config": True}
        values[module] |= {"channel_wise": True, "optimize": True, "round_zero": False}
        values[module] |= {"unpack_view_dtype": torch.int32 if bits == 3 else torch.uint8}
        return {
            f"{module}.W_q": into_words(whole, bits),
            f"{module}.scale": ((torch.rand(by, generator=draw) * 0.05 + 0.01) * 16 / (1 << bits)).to(dtype),
            f"{module}.zero": (torch.rand(by, generator=draw) * ((1 << bits) - 1)).to(dtype),
        }

    held: dict[str, dict[str, Any]] = {}
    for name, tensor in _tiny.model(quantized).items():
        module, _, kind = name.rpartition(".")
        held.setdefault(module, {})[kind] = tensor
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({module: tensors | values.get(module, {}) for module, tensors in held.items()}, folder / "qmodel.pt")
    (folder / "config.json").write_text(json.dumps(dict(_tiny.CONFIG), indent=2) + "\n", encoding="utf-8")
    return folder
