"""Blocks of GGUF whose codes stand still: rows of a grid for 4 or 8 values at a time, with their signs (IQ1 … IQ3).

    IQ2_XXS, IQ2_XS, IQ2_S      w = d·(s + ½)/4 · grid · sign
    IQ3_XXS                     w = d·(s + ½)/2 · grid · sign
    IQ3_S                       w = d·(2s + 1) · grid · sign
    IQ1_S, IQ1_M                w = d·(2s + 1) · (grid ± ⅛)
    TQ1_0, TQ2_0                w = d·(q − 1)

s is a whole number of three or four bits for 16 or 32 values. Products are float32 in the order of ggml's
dequantize_row functions, so that a matrix here is bit for bit theirs. The grids, tables of up to 2,048 rows, are those
of the package gguf.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from forq.checkpoints.containers.gguf.kinds import Kind
from forq.errors import ConfigError
from forq.formats.codecs.gguf_codes import taken_apart
from forq.formats.codecs.gguf_matrix import InBlocks
from forq.layers.scratch import Scratch


@dataclass(frozen=True, slots=True, eq=False)
class GridBlocks(InBlocks):
    """A matrix in such blocks, a :class:`forq.layers.weight.RowWeight`; d is handed in.

    Attributes:
        kind: the type.
        codes: uint8 (out, blocks, bytes), rows of the grid and signs as the file packs them.
        factors: uint8 (out, blocks, bytes), s where the file keeps it apart, or None.
    """

    def fill(
        self,
        live: Sequence[Tensor],
        start: int,
        stop: int,
        out: Tensor,
        scratch: Scratch,
        codes: Tensor | None = None,
    ) -> None:
        """Rows ``start … stop − 1``: see :class:`forq.layers.weight.RowWeight`."""
        codes, d = self.codes[start:stop] if codes is None else codes, live[0][start:stop, :, None]
        if self.kind.name in _TERNARY:
            view = out.view(*codes.shape[:2], -1)
            view.copy_(_TERNARY[self.kind.name](codes, self.kind)).sub_(1).mul_(d)
            return
        found = _FOUND[self.kind.name](codes, None if self.factors is None else self.factors[start:stop])
        grid = _grid(self.kind.name, codes.device)
        torch.index_select(grid, 0, found.rows.reshape(-1), out=out.view(-1, grid.shape[1]))
        if found.signs is not None:
            signs = scratch.take("signs", (found.signs.numel(), 8), torch.float32, codes.device)
            torch.index_select(_signs(codes.device), 0, found.signs.reshape(-1), out=signs)
            out.view(-1, 8).mul_(signs)
        if found.shift is not None:
            out.view(*found.shift.shape, -1).add_(found.shift[..., None])
        scale = (d * found.factor).mul_(found.unit)
        out.view(*scale.shape, -1).mul_(scale[..., None])


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What the bytes of some rows name.

    Attributes:
        rows: int32 (…), rows of the grid in the order of the values.
        factor: float32 (rows, blocks, groups), s + ½ or 2s + 1.
        unit: a power of two, multiplied last.
        signs: int32 (…), a byte of signs for eight values, or None.
        shift: float32 (rows, blocks, groups), what is added to the grid, or None.
    """

    rows: Tensor
    factor: Tensor
    unit: float = 1.0
    signs: Tensor | None = None
    shift: Tensor | None = None


def _words(raw: Tensor, dtype: torch.dtype) -> Tensor:
    return raw.contiguous().view(dtype)


def _bits(words: Tensor, first: int, width: int, count: int) -> Tensor:
    """(…, n) → (…, n · count): ``count`` numbers of ``width`` bits out of each word, the lowest bits first."""
    shift = torch.arange(first, first + width * count, width, dtype=words.dtype, device=words.device)
    return (words[..., None] >> shift & (1 << width) - 1).flatten(-2)


def _even(seven: Tensor) -> Tensor:
    """Bytes of signs of which the file keeps seven bits: their number is even."""
    eighth = seven ^ seven >> 4
    eighth = eighth ^ eighth >> 2
    return seven | ((eighth ^ eighth >> 1) & 1) << 7


def _iq2_xxs(codes: Tensor, factors: Tensor | None) -> _Found:
    second = _words(codes.view(*codes.shape[:2], 8, 8)[..., 4:], torch.int32).squeeze(-1)
    rows = codes.view(*codes.shape[:2], 8, 8)[..., :4].int()
    return _Found(rows, (second >> 28 & 15).float() + 0.5, 0.25, _even(_bits(second, 0, 7, 4)))


def _iq2_xs(codes: Tensor, factors: Tensor | None) -> _Found:
    assert factors is not None
    words = _words(codes, torch.int16).int()
    return _Found(words & 511, _bits(factors, 0, 4, 2).float() + 0.5, 0.25, _even(words >> 9 & 127))


def _iq2_s(codes: Tensor, factors: Tensor | None) -> _Found:
    assert factors is not None
    low, signs, high = torch.split_with_sizes(codes.int(), (32, 32, 8), 2)
    return _Found(low | _bits(high, 0, 2, 4) << 8, _bits(factors, 0, 4, 2).float() + 0.5, 0.25, signs)


def _iq3_xxs(codes: Tensor, factors: Tensor | None) -> _Found:
    second = _words(codes[..., 64:], torch.int32)
    return _Found(codes[..., :64].int(), (second >> 28 & 15).float() + 0.5, 0.5, _even(_bits(second, 0, 7, 4)))


def _iq3_s(codes: Tensor, factors: Tensor | None) -> _Found:
    assert factors is not None
    low, high, signs = torch.split_with_sizes(codes.int(), (64, 8, 32), 2)
    return _Found(low | _bits(high, 0, 1, 8) << 8, _bits(factors, 0, 4, 2).float() * 2 + 1, 1.0, signs)


def _iq1_s(codes: Tensor, factors: Tensor | None) -> _Found:
    words = _words(codes[..., 32:], torch.int16).int()
    rows = codes[..., :32].int() | _bits(words, 0, 3, 4) << 8
    shift = 0.125 - (words >> 15 & 1).float() * 0.25
    return _Found(rows, (words >> 12 & 7).float() * 2 + 1, shift=shift)


def _iq1_m(codes: Tensor, factors: Tensor | None) -> _Found:
    assert factors is not None
    high = _bits(codes[..., 32:].int(), 0, 4, 2)
    rows = codes[..., :32].int() | (high & 7) << 8
    shift = 0.125 - (high >> 3).float() * 0.25
    # Six bytes are sixteen numbers of three bits, each for two rows of the grid; a shift is for one.
    three = factors.view(*factors.shape[:2], 2, 3).int()
    whole = three[..., 0] | three[..., 1] << 8 | three[..., 2] << 16
    return _Found(rows, _bits(whole, 0, 3, 8).float() * 2 + 1, shift=shift)


_FOUND: Mapping[str, Callable[[Tensor, Tensor | None], _Found]] = {
    "IQ2_XXS": _iq2_xxs,
    "IQ2_XS": _iq2_xs,
    "IQ2_S": _iq2_s,
    "IQ3_XXS": _iq3_xxs,
    "IQ3_S": _iq3_s,
    "IQ1_S": _iq1_s,
    "IQ1_M": _iq1_m,
}


def _base_three(codes: Tensor, kind: Kind) -> Tensor:
    """Five digits a byte, four in the last four bytes; a byte is the fraction whose digits they are."""
    found = []
    for part, digits in zip(torch.split_with_sizes(codes, (32, 16, 4), 2), (5, 5, 4), strict=True):
        power = torch.tensor([3**place for place in range(digits)], dtype=torch.uint8, device=codes.device)
        rest = part[..., None, :] * power[:, None]  # modulo 256: the digits in front fall off
        found.append((rest.to(torch.int16) * 3 >> 8).flatten(2))
    return torch.cat(found, dim=2)


_TERNARY: Mapping[str, Callable[[Tensor, Kind], Tensor]] = {"TQ1_0": _base_three, "TQ2_0": taken_apart}

STILL = frozenset((*_FOUND, *_TERNARY))
"""Types whose codes stand still."""


@cache
def _signs(device: torch.device) -> Tensor:
    """float32 (256, 8): the signs that a byte stands for."""
    byte = torch.arange(256, device=device)[:, None]
    return 1.0 - 2.0 * (byte >> torch.arange(8, device=device) & 1)


@cache
def _grid(name: str, device: torch.device) -> Tensor:
    """float32 (rows, 4 or 8): a type's grid.

    Raises:
        ConfigError: the package gguf is not installed.
    """
    return _table(name).to(device)


def _table(name: str) -> Tensor:
    try:
        quants = importlib.import_module("gguf.quants")
    except ImportError as error:
        raise ConfigError(
            f"{name}: expected the package gguf, which has this type's grid, found none; pip install 'forq[gguf]'"
        ) from error
    kind = getattr(quants, name)
    kind.init_grid()
    return torch.from_numpy(kind.grid).reshape(kind.grid_shape).to(torch.float32, copy=True)


def check(kind: Kind) -> None:
    """Find a type's grid when a checkpoint is opened, rather than in the first forward.

    Raises:
        ConfigError: the package gguf is not installed.
    """
    if kind.name in _FOUND:
        _grid(kind.name, torch.device("cpu"))
