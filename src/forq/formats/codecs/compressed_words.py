"""compressed-tensors' words: codes and zero points packed in 32 bits, or a signed byte each.

What a word holds is q + 2^(bits − 1), the unsigned code, the first in the lowest bits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from forq.layers.codes import pack, unpack
from forq.layers.weight import zeros_dtype

_WORD_BITS = 32


def unpack_codes(words: Tensor, columns: int, bits: int) -> Tensor:
    """int32 (out, ⌈in·bits/32⌉) → packed codes, uint8 (out, in·bits/8)."""
    return words.contiguous().view(torch.uint8).view(len(words), -1)[:, : columns * bits // 8].contiguous()


def pack_codes(codes: Tensor) -> Tensor:
    """The inverse; the last word of a row is filled up with zeros."""
    return pad(codes, (0, -codes.shape[1] % 4)).contiguous().view(torch.int32)


def unpack_zeros(words: Tensor, rows: int, bits: int) -> Tensor:
    """int32 (⌈out·bits/32⌉, groups) → (groups, out), unsigned."""
    # Flat first: a column of one word counts as contiguous whatever its strides, and then is no bytes.
    stream = words.t().reshape(-1).view(torch.uint8).view(words.shape[1], -1)
    return unpack(stream, bits)[:, :rows].to(zeros_dtype(bits)).contiguous()


def pack_zeros(zeros: Tensor, bits: int) -> Tensor:
    """The inverse of :func:`unpack_zeros`."""
    whole = pad(zeros.to(torch.uint8), (0, -zeros.shape[1] % (_WORD_BITS // bits)))
    return pack(whole, bits).contiguous().view(torch.int32).t().contiguous()


def signed_zeros(zeros: Tensor, bits: int) -> Tensor:
    """(groups, out), unsigned → int8 (out, groups), signed."""
    return (zeros.to(torch.int16) - (1 << bits - 1)).to(torch.int8).t().contiguous()


def codes_of_bytes(stored: Tensor) -> Tensor:
    """int8 (out, in) → codes of 8 bits, uint8: q + 128."""
    return stored.view(torch.uint8) ^ 128


def bytes_of_codes(codes: Tensor) -> Tensor:
    """The inverse of :func:`codes_of_bytes`."""
    return (codes ^ 128).view(torch.int8)
