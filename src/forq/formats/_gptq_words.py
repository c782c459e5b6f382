"""GPTQ's 32-bit words: codes packed along the inputs, zero points along the outputs, 4 bits each."""

from __future__ import annotations

import torch
from torch import Tensor

# v1 → v2 adds one to every nibble of a word at once, with carry: the exact inverse of how v1 is written.
_ONE_PER_NIBBLE = 0x11111111


def unpack_codes(qweight: Tensor) -> Tensor:
    """int32 (in/8, out) → uint8 (out, in/2): the bytes are right already, only their order is not."""
    words, rows = qweight.shape
    return qweight.view(torch.uint8).view(words, rows, 4).transpose(0, 1).reshape(rows, 4 * words)


def pack_codes(codes: Tensor) -> Tensor:
    """uint8 (out, in/2) → int32 (in/8, out); inverse of :func:`unpack_codes`."""
    rows, width = codes.shape
    turned = codes.view(rows, width // 4, 4).transpose(0, 1).contiguous()
    return turned.view(torch.int32).view(width // 4, rows)


def unpack_zeros(qzeros: Tensor, offset: int) -> Tensor:
    """int32 (groups, out/8) → int8 (groups, out), the true zero points."""
    groups, words = qzeros.shape
    true = _add_per_nibble(qzeros, offset).view(torch.uint8)
    return torch.stack((true & 15, true >> 4), dim=-1).view(groups, 8 * words).view(torch.int8)


def pack_zeros(zeros: Tensor, offset: int) -> Tensor:
    """int8 (groups, out) → int32 (groups, out/8); inverse of :func:`unpack_zeros`."""
    pairs = zeros.view(torch.uint8).view(zeros.shape[0], -1, 2)
    packed = (pairs[..., 0] | pairs[..., 1] << 4).contiguous()
    return _add_per_nibble(packed.view(torch.int32), -offset)


def _add_per_nibble(words: Tensor, offset: int) -> Tensor:
    # In int64, and then the low half: int32 addition that wraps is not promised everywhere.
    wide = (words.long() + offset * _ONE_PER_NIBBLE) & 0xFFFFFFFF
    return torch.where(wide >= 1 << 31, wide - (1 << 32), wide).to(torch.int32)
