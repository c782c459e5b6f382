"""bitsandbytes at 4 bits: NF4 and FP4, a largest magnitude for every block of the flattened matrix.

    X.weight                                   uint8 (out·in / 2, 1), the first of two codes in the high bits
    X.weight.absmax                            float32 (blocks,); uint8 with double quantization
    X.weight.quant_map                         float32 (16,), the levels; the same in every file
    X.weight.quant_state.bitsandbytes__nf4     uint8: a JSON text with blocksize, dtype and shape (or …__fp4)
    X.weight.nested_absmax, .nested_quant_map  float32, with double quantization

Blocks run over the rows laid end to end, so that one may hold several rows, or end within one. Layout as written by
bitsandbytes through transformers; see :mod:`forq.formats.codecs.bnb_state` for what is nested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint, Relaid, Streamed
from forq.errors import FormatError
from forq.formats.base import About, Format
from forq.formats.codecs.bnb_state import byte_table, check_levels, magnitudes, state, unnested
from forq.layers.layer import FiledCodes, LayerSpec, Live, Parts
from forq.layers.normal_float import table
from forq.layers.weight import QuantWeight

_UNNESTED = (
    "the magnitudes are written as float32 and no longer nested (about 0.37 bits a weight more), as nesting them again "
    "would lose small steps"
)
_BIASES = (torch.float16, torch.bfloat16, torch.float32)


class BitsAndBytes4(Format):
    """Codes of 16 levels beside a magnitude a block, as bitsandbytes and transformers write them."""

    about = About(
        title="bitsandbytes NF4, FP4",
        bits="4",
        moves=("scales", "codes"),
        exported=f"the same file; with double quantization {_UNNESTED}",
        library="bitsandbytes 0.50.2, through transformers 5.23.0 and diffusers 0.42.1",
        layout=(
            "weight            uint8 (out·in / 2, 1), the first of two codes in the high bits",
            "weight.absmax     float32 (blocks,), blocks of the flattened matrix; uint8 with double quantization",
            "weight.quant_map  float32 (16,)",
            "weight.quant_state.bitsandbytes__nf4, …__fp4   uint8: JSON with blocksize, dtype, shape",
            "weight.nested_absmax, weight.nested_quant_map  float32, with double quantization",
        ),
        exceptions=(
            "with double quantization, once a magnitude moved: absmax is float32 in every layer, nested_absmax and "
            "nested_quant_map are gone, quant_state and config.json say so",
        ),
    )

    def recognise(self, ckpt: Checkpoint) -> bool:
        """Whether a matrix of the checkpoint has a description as bitsandbytes writes it."""
        return any(_weight_of(name) is not None for name in ckpt.info)

    def layers(self, ckpt: Checkpoint) -> dict[str, LayerSpec]:
        """The quantized layers by module name, checked from the headers and the descriptions.

        Raises:
            FormatError: tensors are missing, or contradict each other or their description.
        """
        weights = sorted(weight for name in ckpt.info if (weight := _weight_of(name)) is not None)
        return {spec.name: spec for spec in (_spec(ckpt, weight) for weight in weights)}

    def read(self, ckpt: Checkpoint, spec: LayerSpec) -> Parts:
        """Ranks, magnitudes and bias of a layer.

        Raises:
            FormatError: the file's levels are not those of its kind.
        """
        weight = f"{spec.name}.weight"
        how = state(ckpt, weight)
        check_levels(ckpt, weight, how.kind)
        rows, groups = spec.out_features, spec.in_features // spec.group_size
        raw = ckpt.read(weight).view(-1)
        codes = byte_table(how.kind, ours=True)[raw.int()].view(rows, -1)
        none = torch.zeros(1, dtype=torch.int8).expand(groups, rows)
        still = QuantWeight(codes, none, 4, spec.group_size, levels=table(how.kind).levels)
        arrange = partial(_arranged, rows=rows, groups=groups, repeats=how.blocksize // spec.group_size)
        bias = None if spec.bias is None else ckpt.read(spec.bias)
        return Parts(still, (magnitudes(ckpt, weight, how),), bias, arrange)

    def read_live(self, ckpt: Checkpoint, spec: LayerSpec, live: Live) -> Tensor:
        """The magnitudes of a layer, float32, not nested."""
        weight = f"{spec.name}.weight"
        return magnitudes(ckpt, weight, state(ckpt, weight))

    def filed_codes(self, ckpt: Checkpoint, spec: LayerSpec) -> FiledCodes:
        """How the ranks of a layer are packed."""
        weight = f"{spec.name}.weight"
        kind, shape = state(ckpt, weight).kind, ckpt.info[weight].shape

        def packed(codes: Tensor) -> Tensor:
            return byte_table(kind, ours=False)[codes.reshape(-1).int()].view(shape)

        return FiledCodes(weight, torch.uint8, spec.shape, spec.bits, packed)

    def exported(self, ckpt: Checkpoint) -> str:
        """What a save of this checkpoint is: double quantization is undone."""
        nested = any(name.endswith(".nested_absmax") for name in ckpt.info)
        return f"the same file, but once a magnitude moved {_UNNESTED}" if nested else "the same file; nothing is lost"

    def relaid(self, ckpt: Checkpoint, moved: Mapping[str, Tensor]) -> Relaid:
        """What a save writes: once a nested magnitude moved, the magnitudes of all layers, not nested."""
        found = {name: state(ckpt, name) for name in map(_weight_of, ckpt.info) if name is not None}
        nested = {f"{weight}.absmax": (weight, how) for weight, how in found.items() if how.nested is not None}
        stay = {
            name
            for name, (weight, how) in nested.items()
            if name in moved and torch.equal(moved[name].cpu().float(), magnitudes(ckpt, weight, how))
        }
        make: dict[str, Callable[[], Tensor]] = {
            name: partial(moved.__getitem__, name) for name in moved if name not in stay
        }
        if not nested.keys() & make.keys():
            return Relaid(Streamed(make))
        gone = set()
        for name, (weight, how) in nested.items():
            make[name] = partial(_absmax, moved, name) if name in moved else partial(magnitudes, ckpt, weight, how)
            make[how.name] = partial(unnested, how)
            gone |= {f"{weight}.nested_absmax", f"{weight}.nested_quant_map"}
        settings = {**ckpt.config.get("quantization_config", {}), "bnb_4bit_use_double_quant": False}
        return Relaid(Streamed(make), frozenset(gone), {**ckpt.config, "quantization_config": settings})


format = BitsAndBytes4()


def _absmax(moved: Mapping[str, Tensor], name: str) -> Tensor:
    return moved[name].float()


def _weight_of(name: str) -> str | None:
    """The matrix a description belongs to, by the description's name."""
    weight, dot, kind = name.rpartition(".quant_state.bitsandbytes__")
    return weight if dot and kind in ("nf4", "fp4") and weight.endswith(".weight") else None


def _spec(ckpt: Checkpoint, weight: str) -> LayerSpec:
    how, module = state(ckpt, weight), weight.removesuffix(".weight")
    rows, columns = how.shape
    kinds = [weight, f"{weight}.absmax", f"{weight}.quant_map", how.name]

    def expect(name: str, shape: tuple[int, ...], *dtypes: torch.dtype) -> None:
        info = ckpt.info.get(name)
        if info is None:
            raise FormatError(f"{name}: expected it beside {how.name}, found none; the file is damaged")
        if info.shape != shape or info.dtype not in dtypes:
            raise FormatError(
                f"{name}: expected {' or '.join(map(str, dtypes))} of shape {shape} by {how.name}, found {info.dtype} "
                f"of shape {info.shape}; the file is damaged, or of a storage forq does not read"
            )

    expect(weight, (rows * columns // 2, 1), torch.uint8)
    expect(f"{weight}.quant_map", (16,), torch.float32)
    expect(f"{weight}.absmax", (how.blocks,), torch.float32 if how.nested is None else torch.uint8)
    if how.nested is not None:
        expect(f"{weight}.nested_absmax", (-(-how.blocks // how.nested),), torch.float32)
        expect(f"{weight}.nested_quant_map", (256,), torch.float32)
        kinds += [f"{weight}.nested_absmax", f"{weight}.nested_quant_map"]
    bias = f"{module}.bias" if f"{module}.bias" in ckpt.info else None
    if bias is not None:
        expect(bias, (rows,), *_BIASES)
        kinds.append(bias)
    # The inputs of one row that share a magnitude, wherever in the row.
    size = math.gcd(columns, how.blocksize)
    run = columns // how.blocksize if columns % how.blocksize == 0 else 1
    live = (Live(f"{weight}.absmax", torch.float32, run=run),)
    return LayerSpec(module, columns, rows, 4, size, live, bias, tuple(kinds))


def _arranged(absmax: Tensor, rows: int, groups: int, repeats: int) -> Tensor:
    """(blocks,) → (groups, out); where blocks and rows do not end together every group has a copy of its block's."""
    if repeats > 1:
        absmax = absmax.repeat_interleave(repeats)
    return absmax[: rows * groups].view(rows, groups).t()
