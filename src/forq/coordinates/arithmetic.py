"""The arithmetic of moves, elementwise: links, rounding, bounds, what a file stores, and digests.

These functions are the law of :mod:`forq.coordinates.space`, version 1: float32, each operation rounded once, nothing
fused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from forq.checkpoints import rows_of
from forq.coordinates.domain import Domain
from forq.coordinates.leaf import LatticeLeaf, Leaf, PackedLeaf
from forq.devices import triton_for
from forq.errors import ConfigError
from forq.noise.bits import Bits, UInt32, leaf_id
from forq.scalars.moves import Link

LAW = 1

# Streams of a leaf's bits that no noise law uses.
_LINK_STREAM = 1 << 32
_EXPORT_STREAM = 2 << 32


def linked(total: Tensor, link: Link, key: int, start: int) -> Tensor:
    """Apply a link to a sum of terms, in place.

    Args:
        key: leaf id.
        start: first of the leaf's coordinates in ``total``.
    """
    match link.kind:
        case "identity":
            return total
        case "sign":
            return total.sign_().mul_(link.size)
        case "stochastic":
            return rounded(total, link.seed, key, start).mul_(link.size)
        case unknown:
            raise ConfigError(f"no link is called {unknown!r}; known: identity, sign, stochastic")


def rounded(total: Tensor, seed: int, key: int, start: int) -> Tensor:
    """Round down or up at random, in place; integers stay."""
    bits, device = Bits(seed, key, _LINK_STREAM), total.device
    if triton_for(device.type):
        from forq.noise import triton as philox

        drawn = philox.uniform32(bits, start, total.numel(), device)
        carry = (drawn >> 8 & (1 << 24) - 1).float().mul_(2.0**-24)
    else:
        carry = _carry(bits.uniform32(start, total.numel())).to(device)
    return total.add_(carry).floor_()


def rounded_at(total: Tensor, seed: int, key: int, places: Tensor) -> Tensor:
    """:func:`rounded` for some of a leaf's coordinates, whose places rise."""
    draw = Bits(seed, key, _LINK_STREAM).uniform32_at(places.cpu().numpy())
    return total.add_(_carry(draw).to(total.device)).floor_()


def _carry(draw: UInt32) -> Tensor:
    """24 bits are exact in float32, so the carry is below 1 and equal everywhere."""
    return torch.from_numpy((draw >> 8).astype(np.float32) * np.float32(2.0**-24))


def fitting(step: Tensor, old: Tensor, domain: Domain) -> Tensor:
    """A step, with 0 for coordinates whose probe would be cut on one side."""
    if not domain.skip_edge or domain.low is None or domain.high is None:
        return step
    reach = torch.minimum(old - domain.low, domain.high - old)
    return step.masked_fill_(step.abs() > reach, 0)


def inside(new: Tensor, old: Tensor, domain: Domain) -> Tensor:
    """Coordinates clamped to their bounds, and to the side of zero where they were."""
    if domain.low is not None or domain.high is not None:
        new = new.clamp(domain.low, domain.high)
    if domain.keep_sign:
        side = old.sign()
        # What began below the floor may stay there: a bound must not move what the step did not.
        floor = (old * side).clamp_(max=domain.floor)
        new = torch.maximum(new * side, floor).mul_(side)
    return new


def stored(leaf: Leaf, x: Tensor) -> Tensor:
    """Coordinates as the leaf's file will hold them: rounded to nearest, but bfloat16 at random.

    They are never the leaf's own storage; other packed integers may come back as they are.

    A step of a thousandth is an eighth of a bfloat16's last place. Rounded to nearest, most of a fine-tune would
    vanish; rounded at random, it stays on average. The bits come from the leaf's name, so that the same coordinates
    give the same file.
    """
    if isinstance(leaf, LatticeLeaf | PackedLeaf):
        return leaf.packed(x)
    if leaf.dtype != torch.bfloat16 or x.dtype == torch.bfloat16:
        return x.detach().to(leaf.dtype, copy=True)
    draw = Bits(0, leaf_id(leaf.name), _EXPORT_STREAM).uniform32(0, x.numel()) >> 16
    low = torch.from_numpy(draw.astype(np.int32)).to(x.device).view(x.shape)
    bits = x.detach().float().contiguous().view(torch.int32) + low
    return (bits & -65536).view(torch.float32).to(torch.bfloat16)


def as_stored(leaf: Leaf, x: Tensor) -> Tensor:
    """The coordinates read back from :func:`stored`, float32; packed integers stay packed, which loses nothing."""
    if isinstance(leaf, PackedLeaf):
        return x.detach()
    return x.detach().float() if isinstance(leaf, LatticeLeaf) else stored(leaf, x).float()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """128-bit hash of names, dtypes, shapes and bytes, in name order."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = rows_of(tensors, name)
        state.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        for part in tensor.parts():
            state.update(part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """Sum of all bytes, read as integers of the elements' size, modulo 2^64: the same in every order and on any device.

    Much cheaper than a digest; a single bit that differs is always seen, other differences almost always.
    """
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    total = 0
    for tensor in tensors.values():
        flat = tensor.detach().contiguous().view(-1)
        total += int(flat.view(integers[flat.element_size()]).sum(dtype=torch.int64))
    return total % 2**64
