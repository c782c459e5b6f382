"""Philox on a GPU: the bits of :mod:`forq.noise.bits`, bit for bit, in Triton.

A direction for 100 million scales costs a good part of a second on the CPU and another on the bus; here it is drawn
where it is used. The module is imported only once a GPU needs it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from forq.noise.bits import Bits

_BLOCKS = 128
"""Blocks of four words that one program makes."""
_SIGNS = 1024
"""Signs that one program writes."""
_SEED = ["key_low", "key_high", "seed_low", "seed_high"]
_LEAF = ["leaf_low", "leaf_high", "stream_low", "stream_high"]


def words(bits: Bits, start: int, count: int, device: torch.device) -> Tensor:
    """Words ``start … start + count − 1`` on a GPU, int64 whose bits are :meth:`Bits.words`'s."""
    first, skip = divmod(start, 4)
    blocks = -(-(skip + count) // 4)
    out = torch.empty(4 * blocks, dtype=torch.int64, device=device)
    numbers = [*_seed(bits.seed), *_halves(bits.leaf), *_halves(bits.stream)]
    _words[(triton.cdiv(blocks, _BLOCKS),)](out, blocks, *numbers, first, BLOCKS=_BLOCKS)
    return out[skip : skip + count]


def uniform32(bits: Bits, start: int, count: int, device: torch.device) -> Tensor:
    """Numbers ``start … start + count − 1`` of 32 bits, int32 whose bits are :meth:`Bits.uniform32`'s."""
    first = start // 2
    halves = words(bits, first, -(-(start + count) // 2) - first, device).view(torch.int32)
    return halves[start - 2 * first :][:count]


Signs = tuple[int, float, bool]
"""One direction of ±1: its seed, its weight, and whether the coordinates of an output row share a sign."""


def sum_of_signs(terms: tuple[Signs, ...], bits: Bits, start: int, count: int, device: torch.device) -> Tensor:
    """Σ weight·z over directions of ±1 for coordinates ``start … start + count − 1``, float32, added one by one.

    A sign is + where its bit of the row of bits is set, as the law ``rademacher`` has it. One kernel for all terms: the
    words are made anew for every coordinate, which costs less than a pass over memory for each term.

    Args:
        bits: leaf, stream and rows; the seeds are the terms'.
    """
    out = torch.empty(count, dtype=torch.float32, device=device)
    numbers = [*_halves(bits.leaf), *_halves(bits.stream), *bits.rows]
    _sum[(triton.cdiv(count, _SIGNS),)](
        _table(terms, device), len(terms), out, start, count, *numbers, SIGNS=_SIGNS, enable_fp_fusion=False
    )
    return out


@lru_cache(maxsize=8)
def _table(terms: tuple[Signs, ...], device: torch.device) -> Tensor:
    """int32 (terms, 6): a seed in four parts, a weight's bits, a flag. The same for every leaf of a move."""
    rows = []
    for seed, weight, by_row in terms:
        rows.append([*_seed(seed), int(np.float32(weight).view(np.int32)), int(by_row)])
    return torch.tensor(rows, dtype=torch.int32, device=device)


def _seed(seed: int) -> list[int]:
    """A direction's seed: the high word, which is the key's, then the low one."""
    return [*_halves(seed >> 64), *_halves(seed & (1 << 64) - 1)]


def _halves(word: int) -> list[int]:
    """64 bits as two signed 32-bit numbers, low first, so that no value changes a kernel's type."""
    return [(half + (1 << 31)) % (1 << 32) - (1 << 31) for half in (word & 0xFFFFFFFF, word >> 32)]


@triton.jit
def _wide(low, high):  # type: ignore[no-untyped-def]
    """The inverse."""
    low = low.to(tl.uint32, bitcast=True).to(tl.uint64)
    return low | (high.to(tl.uint32, bitcast=True).to(tl.uint64) << 32)


@triton.jit
def _rounds(block, key0, key1, seed, stream):  # type: ignore[no-untyped-def]
    """Ten rounds on the counter (block, seed, stream, 0): four words for every block."""
    c0 = block.to(tl.uint64)
    c1, c2, c3 = seed + c0 * 0, stream + c0 * 0, c0 * 0
    k0, k1 = key0 + c0 * 0, key1 + c0 * 0
    m0, m1 = c0 * 0 + 0xD2E7470EE14C6C93, c0 * 0 + 0xCA5A826395121157
    for _ in tl.static_range(10):
        high0, high1 = tl.umulhi(m0, c0), tl.umulhi(m1, c2)
        low0, low1 = m0 * c0, m1 * c2
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += 0x9E3779B97F4A7C15
        k1 += 0xBB67AE8584CAA73B
    return c0, c1, c2, c3


@triton.jit(do_not_specialize=[*_SEED, *_LEAF, "first"])
def _words(  # type: ignore[no-untyped-def]
    out, blocks, key_low, key_high, seed_low, seed_high, leaf_low, leaf_high, stream_low, stream_high, first,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    here = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    seed, stream = _wide(seed_low, seed_high), _wide(stream_low, stream_high)
    c0, c1, c2, c3 = _rounds(first + here, _wide(key_low, key_high), _wide(leaf_low, leaf_high), seed, stream)
    inside = here < blocks
    at = out + 4 * here.to(tl.int64)
    tl.store(at, c0.to(tl.int64, bitcast=True), inside)
    tl.store(at + 1, c1.to(tl.int64, bitcast=True), inside)
    tl.store(at + 2, c2.to(tl.int64, bitcast=True), inside)
    tl.store(at + 3, c3.to(tl.int64, bitcast=True), inside)


@triton.jit(do_not_specialize=["terms", "start", "count", "stride", "rows", *_LEAF])
def _sum(  # type: ignore[no-untyped-def]
    table, terms, out, start, count, leaf_low, leaf_high, stream_low, stream_high, stride, rows, SIGNS: tl.constexpr
):
    here = tl.program_id(0) * SIGNS + tl.arange(0, SIGNS)
    place = start + here
    row = place // stride % rows
    leaf, stream = _wide(leaf_low, leaf_high), _wide(stream_low, stream_high)
    total = tl.zeros([SIGNS], tl.float32)
    for term in range(terms):
        own = table + 6 * term
        key = _wide(tl.load(own), tl.load(own + 1))
        seed = _wide(tl.load(own + 2), tl.load(own + 3))
        weight = tl.load(own + 4).to(tl.float32, bitcast=True)
        at = tl.where(tl.load(own + 5) == 1, row, place)
        c0, c1, c2, c3 = _rounds(at >> 8, key, leaf, seed, stream)
        lane = at >> 6 & 3
        word = tl.where(lane == 0, c0, tl.where(lane == 1, c1, tl.where(lane == 2, c2, c3)))
        signed = tl.where((word >> (at & 63).to(tl.uint64) & 1) == 1, weight, -weight)
        total = tl.where(term == 0, signed, total + signed)
    tl.store(out + here, total, here < count)
