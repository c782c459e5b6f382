"""Codes of 2, 3, 4 or 8 bits in bytes: packed rows, and the parts a kernel takes out of them.

A row of n codes is packed in n·bits/8 bytes. At 2, 4 and 8 bits they follow each other, the first in the lowest bits.
At 3 bits a code would straddle bytes, so a row is two planes: the low two bits of all codes (n/4 bytes), then the high
bits (n/8). Taken apart, a row comes as v parts of n/v codes that lie beside each other: part p holds the codes
p, v + p, 2v + p, … with v = 8/bits, or 8 at 3 bits. Codes are never moved one by one, only whole rows of bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BITS = (2, 3, 4, 8)


def parts(bits: int) -> int:
    """How many parts a row comes apart into, v."""
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
        low = [joined(apart[:, 4 * half : 4 * half + 4] & 3, 2) for half in (0, 1)]
        return torch.cat([*low, joined(apart >> 2, 1)], dim=1)
    return joined(apart, bits)


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
    """Single codes of packed rows laid end to end: int64 (n,) → int32 (n,)."""
    return bits_at(codes.view(-1), _spots(codes, bits, places))


def put_codes_at(codes: Tensor, bits: int, places: Tensor, x: Tensor) -> None:
    """The inverse; the places are distinct."""
    put_bits_at(codes.view(-1), _spots(codes, bits, places), x)


Spots = Sequence[tuple[Tensor, Tensor, int]]
"""Where single codes are, lowest bits first: their bytes, the shift in each, and how many bits of a code are there."""


def bits_at(flat: Tensor, spots: Spots) -> Tensor:
    """Codes out of bytes, uint8 (n,): int32."""
    codes, up = torch.zeros_like(spots[0][0], dtype=torch.int32), 0
    for byte, shift, width in spots:
        codes |= (flat[byte] >> shift.to(torch.uint8) & (1 << width) - 1).to(torch.int32) << up
        up += width
    return codes


def put_bits_at(flat: Tensor, spots: Spots, x: Tensor) -> None:
    """The inverse; the places are distinct."""
    up = 0
    for byte, shift, width in spots:
        part = (x >> up & (1 << width) - 1).to(torch.uint8)
        for place in range(0, 8, width):  # no two codes share both a byte and a shift
            mine, mask = shift == place, (1 << width) - 1 << place
            flat[byte[mine]] = flat[byte[mine]] & 255 - mask | part[mine] << place
        up += width


def _spots(codes: Tensor, bits: int, places: Tensor) -> Spots:
    if bits != 3:
        count = 8 // bits
        return [(places // count, places % count * bits, bits)]
    eighth = codes.shape[1] // 3
    begin, column = places // (8 * eighth) * codes.shape[1], places % (8 * eighth)
    byte, part = begin + column // 8, column % 8
    return [(byte + part // 4 * eighth, part % 4 * 2, 2), (byte + 2 * eighth, part, 1)]


def planes(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Views of 3-bit codes: the low two bits (rows, 2, n/8), four codes a byte, and the high ones (rows, n/8)."""
    eighth = codes.shape[1] // 3
    return codes[:, : 2 * eighth].view(len(codes), 2, eighth), codes[:, 2 * eighth :]


def joined(apart: Tensor, bits: int) -> Tensor:
    """uint8 (rows, k, m) of ``bits`` each → (rows, m), the first in the lowest bits."""
    result = apart[:, 0].clone()
    for part in range(1, apart.shape[1]):
        result |= apart[:, part] << (bits * part)
    return result


class PackedCodes:
    """Base of weights whose ``codes`` of ``bits`` are packed in this way: their shape, and access to single codes.

    See :class:`forq.layers.weight.CodedWeight`.
    """

    __slots__ = ()
    codes: Tensor
    bits: int

    @property
    def out_features(self) -> int:
        return int(self.codes.shape[0])

    @property
    def in_features(self) -> int:
        return int(self.codes.shape[1]) * 8 // self.bits

    def take_codes(self, start: int, stop: int) -> Tensor:
        return take_codes(self.codes, self.bits, start, stop)

    def put_codes(self, start: int, x: Tensor) -> None:
        put_codes(self.codes, self.bits, start, x)

    def codes_at(self, places: Tensor) -> Tensor:
        return codes_at(self.codes, self.bits, places)

    def put_codes_at(self, places: Tensor, x: Tensor) -> None:
        put_codes_at(self.codes, self.bits, places, x)
