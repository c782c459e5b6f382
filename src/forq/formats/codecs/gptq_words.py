"""GPTQ's 32-bit words: codes packed along the inputs, zero points along the outputs, the first in the lowest bits.

At 3 bits codes run on across words, 32 of them in three.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forq.layers.codes import pack, unpack
from forq.layers.weight import zeros_dtype

WORD_BITS = 32
# v1 → v2 adds one to every code of a word at once, with carry: the exact inverse of how v1 is written. At 3 bits,
# where codes straddle words, it is added to each code on its own.
_ONES = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}


def multiple(bits: int) -> int:
    """Inputs and outputs come in multiples of this: they fill 32-bit words, three at a time at 3 bits."""
    return WORD_BITS if bits == 3 else WORD_BITS // bits


def unpack_codes(qweight: Tensor, bits: int = 4) -> Tensor:
    """int32 (in·bits/32, out) → packed codes, uint8 (out, in·bits/8)."""
    words, rows = qweight.shape
    stream = qweight.contiguous().view(torch.uint8).view(words, rows, 4).transpose(0, 1).reshape(rows, 4 * words)
    return stream if bits != 3 else pack(_cut(stream), 3)


def pack_codes(codes: Tensor, bits: int = 4) -> Tensor:
    """Packed codes → int32 (in·bits/32, out); inverse of :func:`unpack_codes`."""
    rows = len(codes)
    stream = codes if bits != 3 else _run(unpack(codes, 3))
    turned = stream.view(rows, -1, 4).transpose(0, 1).contiguous()
    return turned.view(torch.int32).view(-1, rows)


def unpack_zeros(qzeros: Tensor, offset: int, bits: int = 4) -> Tensor:
    """int32 (groups, out·bits/32) → int8 or int16 (groups, out), the true zero points."""
    if bits == 3:
        return ((_cut(qzeros.contiguous().view(torch.uint8)) + offset) & 7).to(zeros_dtype(bits))
    return unpack(_add(qzeros, offset, bits).contiguous().view(torch.uint8), bits).to(zeros_dtype(bits))


def pack_zeros(zeros: Tensor, offset: int, bits: int = 4) -> Tensor:
    """int8 or int16 (groups, out) → int32 (groups, out·bits/32); inverse of :func:`unpack_zeros`."""
    if bits == 3:
        return _run(((zeros - offset) & 7).to(torch.uint8)).contiguous().view(torch.int32)
    return _add(pack(zeros.to(torch.uint8), bits).contiguous().view(torch.int32), -offset, bits)


def _add(words: Tensor, offset: int, bits: int) -> Tensor:
    # In int64, and then the low half: int32 addition that wraps is not promised everywhere.
    wide = (words.long() + offset * _ONES[bits]) & 0xFFFFFFFF
    return torch.where(wide >= 1 << 31, wide - (1 << 32), wide).to(torch.int32)


def _cut(stream: Tensor) -> Tensor:
    """3-bit codes that run on, uint8 (rows, 3n/8), one a byte: uint8 (rows, n)."""
    three = stream.view(len(stream), -1, 3).to(torch.int32)
    word = three[..., 0] | three[..., 1] << 8 | three[..., 2] << 16
    return torch.stack([(word >> 3 * place & 7).to(torch.uint8) for place in range(8)], dim=-1).view(len(stream), -1)


def _run(whole: Tensor) -> Tensor:
    """The inverse of :func:`_cut`."""
    eight = whole.view(len(whole), -1, 8).to(torch.int32)
    word = sum(eight[..., place] << 3 * place for place in range(8))
    assert isinstance(word, Tensor)
    return torch.stack([(word >> 8 * place & 255).to(torch.uint8) for place in range(3)], dim=-1).view(len(whole), -1)
