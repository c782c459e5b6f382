"""Codes, scales and zero points of a layer as blocks of GGUF: the smallest type that holds every weight exactly.

With w = s·(c − z), codes c, scales s and zero points z for a group of inputs, whole multiples of 32:

    Q4_0    d = s, q = c − z + 8           where every c − z is −8 … 7 (symmetric codes of 4 bits and fewer)
    Q4_1    d = s, q = c, m = −z·s         where every z·s is a float16
    Q5_0    d = s, q = c − z + 16          where every c − z is −16 … 15 (all codes of 4 bits)
    Q8_0    d = s, q = c − z               where every c − z is −128 … 127

d·q is exact in float32, and so is the sum, so that a weight is the same number. Scales that are no float16 are rounded.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from forq.checkpoints.containers.gguf.kinds import BY_NAME, Kind
from forq.errors import FormatError
from forq.formats.codecs.gguf_codes import put_together
from forq.layers.codes import unpack
from forq.layers.weight import QuantWeight

_SIZE = 32
_CHUNK = 1 << 20
"""Codes unpacked at once."""


def kind_of(weight: QuantWeight, scales: Tensor) -> Kind:
    """The smallest type that holds a layer.

    Args:
        scales: float (groups, out).

    Raises:
        FormatError: no type holds it: act-order, groups that are no multiples of 32, differences beyond 8 bits.
    """
    _check(weight)
    low, high = 0, 0
    for _, codes, zeros in _chunks(weight):
        offset = codes - zeros
        low, high = min(low, int(offset.min())), max(high, int(offset.max()))
    if low >= -8 and high <= 7:
        return BY_NAME["Q4_0"]
    if weight.bits <= 4 and _is_half(_minima(weight, scales)):
        return BY_NAME["Q4_1"]
    if low >= -16 and high <= 15:
        return BY_NAME["Q5_0"]
    if low >= -128 and high <= 127:
        return BY_NAME["Q8_0"]
    raise FormatError(
        f"expected codes at most 127 above and 128 below their zero points, found {low} … {high}; export to float16"
    )


def packed(weight: QuantWeight, scales: Tensor, kind: Kind) -> Tensor:
    """A layer in blocks of a type that :func:`kind_of` chose: uint8 (out, bytes of a row)."""
    d = _by_block(weight, scales.half())
    if not bool(torch.isfinite(d).all()):
        raise FormatError("expected scales that fit float16, found larger ones; export to float32")
    live = [d] if kind.name != "Q4_1" else [d, _by_block(weight, _minima(weight, scales).half())]
    rows, blocks = d.shape
    out = torch.empty(rows, blocks, kind.nbytes, dtype=torch.uint8)
    for place, number in enumerate(live):
        out[:, :, 2 * place : 2 * place + 2] = number.contiguous().view(torch.uint8).view(rows, blocks, 2)
    for start, codes, zeros in _chunks(weight):
        whole = codes if kind.name == "Q4_1" else codes - zeros
        whole = whole.view(len(whole), blocks, _SIZE)
        if kind.bits == 8:
            own = whole.to(torch.int8).view(torch.uint8)
        else:
            middle = 0 if kind.name == "Q4_1" else 1 << kind.bits - 1
            own = put_together((whole + middle).to(torch.uint8), kind)
        out[start : start + len(whole), :, 2 * len(live) :] = own
    return out.view(rows, -1)


def _check(weight: QuantWeight) -> None:
    if weight.group_of is not None:
        raise FormatError(
            "expected groups of consecutive inputs, found act-order (desc_act), which GGUF cannot state; quantize "
            "again without it, or export to float16"
        )
    if weight.group_size % _SIZE or weight.in_features % _SIZE:
        raise FormatError(
            f"expected groups of whole multiples of {_SIZE} inputs, found groups of {weight.group_size} in "
            f"{weight.in_features}; export to float16"
        )


def _chunks(weight: QuantWeight) -> Iterator[tuple[int, Tensor, Tensor]]:
    """First row, codes and zero points of some rows at a time, int16 (rows, in)."""
    step = max(1, _CHUNK // weight.in_features)
    for start in range(0, weight.out_features, step):
        codes = unpack(weight.codes[start : start + step], weight.bits).to(torch.int16)
        zeros = weight.zeros[:, start : start + step].t().to(torch.int16)
        yield start, codes, zeros.repeat_interleave(weight.group_size, dim=1)[:, : weight.in_features]


def _minima(weight: QuantWeight, scales: Tensor) -> Tensor:
    """−z·s, float32 (groups, out)."""
    return -(weight.zeros.float() * scales.half().float())


def _is_half(numbers: Tensor) -> bool:
    return bool((numbers.half().float() == numbers).all())


def _by_block(weight: QuantWeight, numbers: Tensor) -> Tensor:
    """(groups, out) → (out, blocks)."""
    whole = numbers.t().repeat_interleave(weight.group_size // _SIZE, dim=1)
    return whole[:, : weight.in_features // _SIZE]
