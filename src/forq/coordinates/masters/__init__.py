"""Masters: the coordinates of each leaf as a run keeps them, one class for each way a leaf can be kept."""

from __future__ import annotations

from forq.coordinates.directions import NoiseBuffer
from forq.coordinates.domain import Domains
from forq.coordinates.leaf import LazyLeaf, Leaf, PackedLeaf, SparseLeaf
from forq.coordinates.masters.base import Master
from forq.coordinates.masters.eager import EagerMaster
from forq.coordinates.masters.lazy import LazyMaster
from forq.coordinates.masters.packed import PackedMaster, SparseMaster

__all__ = ["EagerMaster", "LazyMaster", "Master", "PackedMaster", "SparseMaster", "master_of"]


def master_of(leaf: Leaf, domain: Domains, buffer: NoiseBuffer, chunk: int | None = None) -> Master:
    """The master of a leaf, by what the leaf can do.

    The protocols are checked here and never again: a check costs as much as moving a small leaf.

    Args:
        domain: from a leaf and its coordinates to where they may go.
        buffer: shared with the other masters of a space.
        chunk: coordinates computed at a time; by default what suits the device.
    """
    if isinstance(leaf, SparseLeaf):
        return SparseMaster(leaf, domain, buffer, chunk)
    if isinstance(leaf, PackedLeaf):
        return PackedMaster(leaf, domain, buffer, chunk)
    if isinstance(leaf, LazyLeaf):
        return LazyMaster(leaf, domain, buffer, chunk)
    return EagerMaster(leaf, domain, buffer, chunk)
