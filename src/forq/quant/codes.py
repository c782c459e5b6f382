"""Codes of 2, 3, 4 or 8 bits in bytes: packed rows, and the parts a kernel takes out of them.

A row of n codes is packed in n·bits/8 bytes. At 2, 4 and 8 bits they follow each other, the first in the lowest bits.
At 3 bits a code would straddle bytes, so a row is two planes: the low two bits of all codes (n/4 bytes), then the high
bits (n/8). Taken apart, a row comes as v parts of n/v codes that lie beside each other: part p holds the codes
p, v + p, 2v + p, … with v = 8/bits, or 8 at 3 bits. No code is moved by itself, whole rows of bytes are.
"""

from __future__ import annotations

import torch
from torch import Tensor

BITS = (2, 3, 4, 8)


def parts(bits: int) -> int:
    """Into how many parts a row comes apart, v."""
    return 8 if bits == 3 else 8 // bits


def take_apart(codes: Tensor, bits: int, out: Tensor) -> None:
    """Fill ``out``, uint8 (rows, v, n/v), from packed codes, uint8 (rows, n·bits/8)."""
    if bits == 8:
        out[:, 0].copy_(codes)
    elif bits == 3:
        low, high = planes(codes)
        for part in range(8):
            half, place = divmod(part, 4)
            target = out[:, part]
            torch.bitwise_right_shift(low[:, half], 2 * place, out=target)
            target.bitwise_and_(3).bitwise_or_((high >> part).bitwise_and_(1).bitwise_left_shift_(2))
    else:
        count, mask = parts(bits), (1 << bits) - 1
        for part in range(count):
            target = out[:, part]
            if part == 0:
                torch.bitwise_and(codes, mask, out=target)
            else:
                torch.bitwise_right_shift(codes, bits * part, out=target)
                if part < count - 1:  # the last has no bits above it
                    target.bitwise_and_(mask)


def pack(whole: Tensor, bits: int) -> Tensor:
    """uint8 (rows, n), one code a byte and in order → packed codes, uint8 (rows, n·bits/8)."""
    if bits == 8:
        return whole.clone()
    count = parts(bits)
    apart = whole.view(len(whole), -1, count).transpose(1, 2)
    if bits == 3:
        low = [_joined(apart[:, 4 * half : 4 * half + 4] & 3, 2) for half in (0, 1)]
        return torch.cat([*low, _joined(apart >> 2, 1)], dim=1)
    return _joined(apart, bits)


def unpack(codes: Tensor, bits: int) -> Tensor:
    """The inverse of :func:`pack`: uint8 (rows, n), a code a byte."""
    rows, count = len(codes), parts(bits)
    columns = codes.shape[1] * 8 // bits
    apart = torch.empty(rows, count, columns // count, dtype=torch.uint8, device=codes.device)
    take_apart(codes, bits, apart)
    return apart.transpose(1, 2).reshape(rows, columns)


def take_codes(codes: Tensor, bits: int, start: int, stop: int) -> Tensor:
    """Codes ``start … stop − 1`` of packed rows laid end to end, int32; the range begins and ends at rows."""
    row = codes.shape[1] * 8 // bits
    return unpack(codes[start // row : stop // row], bits).reshape(-1).to(torch.int32)


def put_codes(codes: Tensor, bits: int, start: int, x: Tensor) -> None:
    """The inverse: store codes from ``start`` on, whole rows."""
    row = codes.shape[1] * 8 // bits
    first = start // row
    codes[first : first + len(x) // row] = pack(x.to(torch.uint8).view(-1, row), bits)


def codes_at(codes: Tensor, bits: int, places: Tensor) -> Tensor:
    """Single codes of packed rows laid end to end: int64 (n,) → int32 (n,). Not at 3 bits, which lie in two planes."""
    count = 8 // bits
    byte = codes.view(-1)[places // count]
    return (byte >> (places % count * bits).to(torch.uint8) & (1 << bits) - 1).to(torch.int32)


def put_codes_at(codes: Tensor, bits: int, places: Tensor, x: Tensor) -> None:
    """The inverse: store codes at places that are all different."""
    count, flat = 8 // bits, codes.view(-1)
    for part in range(count):  # of one part no two share a byte
        mine = places % count == part
        byte, mask = places[mine] // count, (1 << bits) - 1 << bits * part
        flat[byte] = flat[byte] & 255 - mask | x[mine].to(torch.uint8) << bits * part


def planes(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Views of 3-bit codes: the low two bits (rows, 2, n/8), four codes a byte, and the high ones (rows, n/8)."""
    eighth = codes.shape[1] // 3
    return codes[:, : 2 * eighth].view(len(codes), 2, eighth), codes[:, 2 * eighth :]


def _joined(apart: Tensor, bits: int) -> Tensor:
    """uint8 (rows, k, m) of ``bits`` each → (rows, m), the first in the lowest bits."""
    result = apart[:, 0].clone()
    for part in range(1, apart.shape[1]):
        result |= apart[:, part] << (bits * part)
    return result
