"""Rows of weights by the compiled functions: the same numbers as the reference kernel's, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import c_ssize_t, c_void_p
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from forq.layers.kernels.native.build import library, missing
from forq.layers.weight import QuantWeight, RowWeight, Weight

_BITS = (4, 8)


class _Block(NamedTuple):
    """What rows.c reads and writes for a block: bytes of codes and of factors, and values."""

    codes: int
    factors: int
    values: int


_KINDS: Mapping[str, _Block] = {
    "Q4_1": _Block(16, 0, 32),
    "Q5_0": _Block(20, 0, 32),
    "Q5_1": _Block(20, 0, 32),
    "Q2_K": _Block(64, 16, 256),
    "Q3_K": _Block(96, 12, 256),
    "Q4_K": _Block(128, 12, 256),
    "Q5_K": _Block(160, 12, 256),
    "Q6_K": _Block(192, 16, 256),
}
"""GGUF's types in blocks that rows.c knows, by name."""


class _Kind(Protocol):
    @property
    def name(self) -> str: ...


class Blocks(RowWeight, Protocol):
    """A matrix in GGUF's blocks, as :class:`forq.formats.codecs.gguf_blocks.Blocks`."""

    @property
    def kind(self) -> _Kind: ...
    @property
    def codes(self) -> Tensor: ...
    @property
    def factors(self) -> Tensor | None: ...


def unfit(weight: Weight, device: torch.device) -> str | None:
    """Why this kernel cannot compute a layer on this machine, or None where it can."""
    return unlike(weight, device) or missing()


def unlike(weight: Weight, device: torch.device) -> str | None:
    """Why this kernel computes no layer like this, or None where it does, given a compiler; starts none."""
    if device.type != "cpu":
        return f"a CPU is needed, found {device.type}"
    if isinstance(weight, QuantWeight):
        if weight.levels is not None or weight.bits not in _BITS:
            return f"codes of {' or '.join(map(str, _BITS))} bits that count are needed, found others"
        if weight.group_of is not None or weight.group_size % weight.parts:
            return "groups of consecutive inputs are needed, found others"
    elif getattr(getattr(weight, "kind", None), "name", None) not in _KINDS:
        return f"GGUF's types {', '.join(sorted(_KINDS))} are needed, found {type(weight).__name__}"
    return None


def fill_codes(weight: QuantWeight, by_row: Tensor, start: int, stop: int, out: Tensor) -> None:
    """See :func:`forq.layers.kernels.fill.fill_rows`; into float32."""
    rows, columns, groups = stop - start, weight.in_features, weight.groups
    if weight.zero is None:  # float32 holds every integer zero point
        zeros, step = weight.zeros[:, start:stop].t().to(torch.float32).contiguous(), 1
    else:
        zeros, step = torch.tensor([weight.zero], dtype=torch.float32), 0
    run = library().codes_4 if weight.bits == 4 else library().codes_8
    run(
        _at(weight.codes[start:stop], torch.uint8, rows * columns * weight.bits // 8),
        _at(by_row[start:stop], torch.float32, rows * groups),
        _at(zeros, torch.float32, rows * groups if step else 1),
        c_ssize_t(step),
        _at(out, torch.float32, rows * columns),
        *map(c_ssize_t, (rows, columns, weight.group_size)),
    )


def fill_blocks(
    weight: Blocks, live: Sequence[Tensor], start: int, stop: int, out: Tensor, codes: Tensor | None = None
) -> None:
    """See :class:`forq.layers.weight.RowWeight`."""
    codes, block = weight.codes[start:stop] if codes is None else codes, _KINDS[weight.kind.name]
    blocks = codes.shape[0] * codes.shape[1]
    factors = codes.new_empty(0) if weight.factors is None else weight.factors[start:stop].view(torch.uint8)
    getattr(library(), weight.kind.name)(
        _at(codes, torch.uint8, blocks * block.codes),
        _at(factors, torch.uint8, blocks * block.factors),
        _at(live[0][start:stop], torch.float32, blocks),
        _at(live[-1][start:stop], torch.float32, blocks),
        _at(out, torch.float32, blocks * block.values),
        c_ssize_t(blocks),
    )


def _at(tensor: Tensor, dtype: torch.dtype, count: int) -> c_void_p:
    """Where a tensor's numbers lie; C reads as many as it is told.

    Raises:
        RuntimeError: they are of another dtype or number, or elsewhere.
    """
    if tensor.dtype != dtype or tensor.numel() != count or tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise RuntimeError(
            f"native kernel: expected {count} numbers of {dtype} side by side on the CPU, found {tensor.dtype} of "
            f"shape {tuple(tensor.shape)} on {tensor.device.type}"
        )
    return c_void_p(tensor.data_ptr())
