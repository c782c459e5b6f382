"""AQLM: every eight inputs of a row are a sum of vectors out of codebooks, and a row has one scale.

    codebooks  float (C, 2^b, out group, in group)
    codes      int8 or int16 (out / out group, in / in group, C); indices, kept as signed numbers modulo 2^b
    scales     float (out / out group, 1, 1, 1)

    w[o, i … i + 7] = scale[o] · Σ_c codebook[c, code[o, i / 8, c]]

Settings stand in config.json under ``quantization_config``. Layout as read by aqlm's ``QuantizedLinear``; method of
arXiv 2401.06118. Where codes move, the coordinate is the rank of a vector in an order of the file's codebook
(:mod:`forq.formats._aqlm_order`): one cell is the next vector, a near one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.core import FormatError
from forq.formats import _tiny
from forq.formats._about import About
from forq.formats._aqlm_order import order
from forq.formats.checkpoint import Checkpoint
from forq.quant.layer import SHARED, FiledCodes, LayerSpec, Live, Parts
from forq.quant.scratch import Scratch

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


@dataclass(frozen=True, slots=True, eq=False)
class VectorWeight:
    """The indices of a matrix, without the vectors they name and the scales.

    Attributes:
        codes: int8 or int16 (C, out groups, in groups), modulo 2^index_bits; as coordinates they are ranks,
            (out groups, in groups · C).
        index_bits: of one index.
        in_group, out_group: inputs and outputs that one vector covers.
        orders: makes (C, 2^index_bits) from rank to index and from index to rank, on a device; asked where codes move.
    """

    codes: Tensor
    index_bits: int
    in_group: int
    out_group: int
    orders: Callable[[torch.device], tuple[Tensor, Tensor]]

    @property
    def out_features(self) -> int:
        return int(self.codes.shape[1]) * self.out_group

    @property
    def in_features(self) -> int:
        return int(self.codes.shape[2]) * self.in_group

    @property
    def bits(self) -> int:
        """Of indices, a weight, rounded up."""
        return -(-len(self.codes) * self.index_bits // (self.in_group * self.out_group))

    @property
    def group_size(self) -> int:
        return self.in_features

    def to(self, device: torch.device) -> VectorWeight:
        """The same weight on another device."""
        return self.with_codes(self.codes.to(device))

    def with_codes(self, codes: Tensor) -> VectorWeight:
        """The same weight with other indices."""
        return replace(self, codes=codes)

    def take_codes(self, start: int, stop: int) -> Tensor:
        rows = slice(start // self._row, stop // self._row)
        index = self._unsigned(self.codes[:, rows]).permute(1, 2, 0).reshape(-1)
        return self._looked_up(1, torch.arange(start, stop, device=index.device), index)

    def put_codes(self, start: int, x: Tensor) -> None:
        first, rows = start // self._row, len(x) // self._row
        index = self._looked_up(0, torch.arange(start, start + len(x), device=x.device), x)
        self._store(self.codes[:, first : first + rows], index.view(rows, -1, len(self.codes)).permute(2, 0, 1))

    def codes_at(self, places: Tensor) -> Tensor:
        return self._looked_up(1, places, self._unsigned(self.codes.view(-1)[self._spots(places)]))

    def put_codes_at(self, places: Tensor, x: Tensor) -> None:
        flat, spots = self.codes.view(-1), self._spots(places)
        here = flat[spots]
        self._store(here, self._looked_up(0, places, x))
        flat[spots] = here

    def _store(self, here: Tensor, index: Tensor) -> None:
        """Write indices as signed numbers; one that is there already keeps its bytes, however it was written."""
        half = 1 << self.index_bits - 1
        signed = (index + half).bitwise_and_(2 * half - 1).sub_(half).to(here.dtype)
        here.copy_(torch.where(self._unsigned(here) == index, here, signed))

    @property
    def _row(self) -> int:
        return int(self.codes.shape[2]) * len(self.codes)

    def _spots(self, places: Tensor) -> Tensor:
        """Where codes lie, codebook by codebook, by their places row by row."""
        count = len(self.codes)
        return places % count * (self.codes.numel() // count) + places // count

    def _unsigned(self, codes: Tensor) -> Tensor:
        return codes.int().bitwise_and_((1 << self.index_bits) - 1)

    def _looked_up(self, way: int, places: Tensor, x: Tensor) -> Tensor:
        """Ranks → indices (0) or indices → ranks (1), int32, each in the order of its own codebook."""
        table = self.orders(x.device)[way]
        return table.view(-1)[places % len(table) * table.shape[1] + x.long()]

    def fill(self, live: Sequence[Tensor], start: int, stop: int, out: Tensor, scratch: Scratch) -> None:
        """Rows ``start … stop − 1``: see :class:`forq.quant.weight.RowWeight`.

        One look-up a codebook and a sum: 6.5 ms for 2048² of 2x8, where ``embedding_bag`` took 18.
        """
        scales, books = live
        first, last = start // self.out_group, -(-stop // self.out_group)
        groups, per_row = last - first, int(self.codes.shape[2])
        size = (groups * per_row, self.out_group * self.in_group)
        plain = self.out_group == 1
        block = out.view(size) if plain else scratch.take("block", size, torch.float32, out.device)
        for number, book in enumerate(books):
            index = self._unsigned(self.codes[number, first:last].reshape(-1))
            table = book.view(-1, size[1])
            if number == 0:
                torch.index_select(table, 0, index, out=block)
            else:
                more = scratch.take("vectors", size, torch.float32, out.device)
                block.add_(torch.index_select(table, 0, index, out=more))
        block.view(groups, -1).mul_(scales.view(-1, 1)[first:last])
        if not plain:
            rows = block.view(groups, per_row, self.out_group, self.in_group).transpose(1, 2).reshape(-1, out.shape[1])
            out.copy_(rows[start - first * self.out_group :][: stop - start])


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
