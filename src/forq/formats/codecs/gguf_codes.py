"""The codes of GGUF's blocks: which bits of which bytes they are.

A code's bits lie in one or two planes of its block. In a plane of b bits every ``run`` bytes hold 8/b runs of as many
codes: the lowest b bits of these bytes, then the next. ggml calls the planes qs, ql, qh and hmask; in every type they
lie side by side, so that here they are one field, qs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from forq.checkpoints.containers.gguf.kinds import Kind
from forq.layers.codes import Spots, joined


@dataclass(frozen=True, slots=True)
class Plane:
    """Some bits of all codes of a block.

    Attributes:
        start: its first byte in the field.
        run: bytes that follow each other before the next bits of the same bytes are taken.
        bits: of each code.
    """

    start: int
    run: int
    bits: int


PLANES: Mapping[str, tuple[Plane, ...]] = {
    "Q4_0": (Plane(0, 16, 4),),
    "Q4_1": (Plane(0, 16, 4),),
    "Q5_0": (Plane(4, 16, 4), Plane(0, 1, 1)),
    "Q5_1": (Plane(4, 16, 4), Plane(0, 1, 1)),
    "Q2_K": (Plane(0, 32, 2),),
    "Q3_K": (Plane(32, 32, 2), Plane(0, 32, 1)),
    "Q4_K": (Plane(0, 32, 4),),
    "Q5_K": (Plane(32, 32, 4), Plane(0, 32, 1)),
    "Q6_K": (Plane(0, 64, 4), Plane(128, 32, 2)),
    "IQ4_NL": (Plane(0, 16, 4),),
    "IQ4_XS": (Plane(0, 16, 4),),
    "TQ2_0": (Plane(0, 32, 2),),
}
"""By type, lowest bits first; Q8_0 has a byte a code."""


def taken_apart(qs: Tensor, kind: Kind) -> Tensor:
    """uint8 (rows, blocks, bytes) → (rows, blocks, codes), one code a byte and in order."""
    found, up = None, 0
    for plane in PLANES[kind.name]:
        byte = qs[..., plane.start : plane.start + kind.size * plane.bits // 8]
        byte = byte.contiguous().view(*qs.shape[:2], -1, plane.run)  # pieces side by side shift in half the time
        # A number shifts four bits in half the time of a tensor of numbers; of single bits it is the other way round.
        if plane.bits == 4:
            part = torch.stack((byte & 15, byte >> 4), dim=3)
        else:
            shift = torch.arange(0, 8, plane.bits, dtype=torch.uint8, device=qs.device).view(-1, 1)
            part = (byte[..., None, :] >> shift).bitwise_and_((1 << plane.bits) - 1)
        part = part.flatten(2)
        found = part if found is None else found.bitwise_or_(part.bitwise_left_shift_(up))
        up += plane.bits
    assert found is not None
    return found


def put_together(codes: Tensor, kind: Kind) -> Tensor:
    """The inverse."""
    parts, up = {}, 0
    for plane in PLANES[kind.name]:
        apart = (codes >> up & (1 << plane.bits) - 1).view(-1, 8 // plane.bits, plane.run)
        parts[plane.start] = joined(apart, plane.bits).view(*codes.shape[:2], -1)
        up += plane.bits
    return torch.cat([parts[start] for start in sorted(parts)], dim=2)


def spots(places: Tensor, kind: Kind, nbytes: int) -> Spots:
    """Where single codes lie in the bytes of blocks of so many laid end to end."""
    block, code = places // kind.size * nbytes, places % kind.size
    found = []
    for plane in PLANES[kind.name]:
        turn = plane.run * (8 // plane.bits)
        byte = block + plane.start + code // turn * plane.run + code % plane.run
        found.append((byte, code % turn // plane.run * plane.bits, plane.bits))
    return found
