"""Philox on a GPU: the bits of :mod:`forq.noise`, bit for bit, in Triton.

A direction for 100 million scales takes the CPU a good part of a second and the bus another; here it is made where
it is used. Nothing imports this module before a GPU needs it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from forq.noise import Bits

_PER_PROGRAM = 128
"""Blocks of four words that one program makes."""
_WIDTH = 2048
"""Signs that one program writes."""
_HALVES = [f"{what}_{half}" for what in ("key", "leaf", "seed", "stream") for half in ("low", "high")]


def words(bits: Bits, start: int, count: int, device: torch.device) -> Tensor:
    """Words ``start … start + count − 1`` on a GPU, int64 whose bits are :meth:`Bits.words`'s."""
    first, skip = divmod(start, 4)
    blocks = -(-(skip + count) // 4)
    out = torch.empty(4 * blocks, dtype=torch.int64, device=device)
    _words[(triton.cdiv(blocks, _PER_PROGRAM),)](out, blocks, *_numbers(bits, first), PER_PROGRAM=_PER_PROGRAM)
    return out[skip : skip + count]


def uniform32(bits: Bits, start: int, count: int, device: torch.device) -> Tensor:
    """Numbers ``start … start + count − 1`` of 32 bits, int32 whose bits are :meth:`Bits.uniform32`'s."""
    first = start // 2
    halves = words(bits, first, -(-(start + count) // 2) - first, device).view(torch.int32)
    return halves[start - 2 * first :][:count]


def signs(bits: Bits, start: int, count: int, device: torch.device) -> Tensor:
    """Float32 ±1: +1 where bit ``start + i`` of the row of bits is set."""
    first = start // 64
    drawn = words(bits, first, -(-(start + count) // 64) - first, device).view(torch.uint8)
    out = torch.empty(count, dtype=torch.float32, device=device)
    _signs[(triton.cdiv(count, _WIDTH),)](drawn, start - 64 * first, out, count, WIDTH=_WIDTH)
    return out


def _numbers(bits: Bits, first: int) -> list[int]:
    """The kernels' whole numbers: 32 bits each, signed, so that no value changes a kernel's type."""
    found = []
    for whole in (bits.seed >> 64, bits.leaf, bits.seed & (1 << 64) - 1, bits.stream):
        found += [whole & 0xFFFFFFFF, whole >> 32]
    return [(one + (1 << 31)) % (1 << 32) - (1 << 31) for one in (*found, first)]


@triton.jit
def _wide(low, high):  # type: ignore[no-untyped-def]
    """Two halves of 32 bits → 64."""
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


@triton.jit(do_not_specialize=[*_HALVES, "first"])
def _words(  # type: ignore[no-untyped-def]
    out, blocks, key_low, key_high, leaf_low, leaf_high, seed_low, seed_high, stream_low, stream_high, first,
    PER_PROGRAM: tl.constexpr,
):  # fmt: skip
    here = tl.program_id(0) * PER_PROGRAM + tl.arange(0, PER_PROGRAM)
    seed, stream = _wide(seed_low, seed_high), _wide(stream_low, stream_high)
    c0, c1, c2, c3 = _rounds(first + here, _wide(key_low, key_high), _wide(leaf_low, leaf_high), seed, stream)
    inside = here < blocks
    at = out + 4 * here.to(tl.int64)
    tl.store(at, c0.to(tl.int64, bitcast=True), inside)
    tl.store(at + 1, c1.to(tl.int64, bitcast=True), inside)
    tl.store(at + 2, c2.to(tl.int64, bitcast=True), inside)
    tl.store(at + 3, c3.to(tl.int64, bitcast=True), inside)


@triton.jit(do_not_specialize=["skip", "count"])
def _signs(drawn, skip, out, count, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    inside = place < count
    bit = place + skip
    set_ = tl.load(drawn + (bit >> 3), inside, 0) >> (bit & 7).to(tl.uint8) & 1
    tl.store(out + place, tl.where(set_ == 1, 1.0, -1.0), inside)
