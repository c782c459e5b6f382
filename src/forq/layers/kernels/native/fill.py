"""Rows of weights by the compiled functions: the same numbers as the reference kernel's, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_ssize_t, c_void_p
from typing import Protocol

import torch
from torch import Tensor

from forq.layers.kernels.native.build import library, missing
from forq.layers.weight import QuantWeight, RowWeight, Weight

_BITS = (4, 8)
_KINDS = frozenset(("Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"))
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
    """Why this kernel cannot compute a layer, or None where it can."""
    if device.type != "cpu":
        return f"a CPU is needed, found {device.type}"
    if isinstance(weight, QuantWeight):
        if weight.levels is not None or weight.bits not in _BITS:
            return f"codes of {' or '.join(map(str, _BITS))} bits that count are needed, found others"
        if weight.group_of is not None or weight.group_size % weight.parts:
            return "groups of consecutive inputs are needed, found others"
    elif getattr(getattr(weight, "kind", None), "name", None) not in _KINDS:
        return f"GGUF's types {', '.join(sorted(_KINDS))} are needed, found {type(weight).__name__}"
    return missing()


def fill_codes(weight: QuantWeight, by_row: Tensor, start: int, stop: int, out: Tensor) -> None:
    """See :func:`forq.layers.kernels.fill.fill_rows`; into float32."""
    if weight.zero is None:  # float32 holds every integer zero point
        zeros, step = weight.zeros[:, start:stop].t().to(torch.float32).contiguous(), 1
    else:
        zeros, step = torch.tensor([weight.zero], dtype=torch.float32), 0
    codes, scales = weight.codes[start:stop], by_row[start:stop]
    sizes = (stop - start, weight.in_features, weight.group_size)
    run = library().codes_4 if weight.bits == 4 else library().codes_8
    run(_at(codes), _at(scales), _at(zeros), c_ssize_t(step), _at(out), *map(c_ssize_t, sizes))


def fill_blocks(weight: Blocks, live: Sequence[Tensor], start: int, stop: int, out: Tensor) -> None:
    """See :class:`forq.layers.weight.RowWeight`."""
    factors = None if weight.factors is None else weight.factors[start:stop]
    d, m = live[0][start:stop], live[-1][start:stop]
    codes = weight.codes[start:stop]
    run = getattr(library(), weight.kind.name)
    run(_at(codes), None if factors is None else _at(factors), _at(d), _at(m), _at(out), c_ssize_t(d.numel()))


def _at(tensor: Tensor) -> c_void_p:
    assert tensor.is_contiguous()
    return c_void_p(tensor.data_ptr())
