"""AWQ's 32-bit words: eight codes of 4 bits along the outputs, in an order of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from forq.layers.codes import pack, unpack

_BITS, EIGHT = 4, 8
_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which nibble of a word each of its eight outputs lies in."""


def unpack_words(words: Tensor) -> Tensor:
    """int32 (n, out/8) → uint8 (n, out), a code a byte, the outputs in order."""
    halves = words.contiguous().view(torch.uint8)
    apart = torch.stack((halves & 15, halves >> 4), dim=-1).view(len(words), -1, EIGHT)
    return apart[..., _PLACES].view(len(words), -1)


def pack_words(whole: Tensor) -> Tensor:
    """The inverse: small whole numbers (n, out) → int32 (n, out/8)."""
    apart = torch.empty(len(whole), whole.shape[1] // EIGHT, EIGHT, dtype=torch.uint8)
    apart[..., _PLACES] = whole.view(len(whole), -1, EIGHT).to(torch.uint8)
    halves = apart[..., 0::2] | apart[..., 1::2] << 4
    return halves.contiguous().view(torch.int32).view(len(whole), -1)


def unpack_codes(qweight: Tensor) -> Tensor:
    """int32 (in, out/8) → packed codes, uint8 (out, in/2)."""
    return pack(unpack_words(qweight).t().contiguous(), _BITS)


def pack_codes(codes: Tensor) -> Tensor:
    """The inverse: packed codes → int32 (in, out/8)."""
    return pack_words(unpack(codes, _BITS).t().contiguous())
