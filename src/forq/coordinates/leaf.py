"""Leaf: one trainable tensor, wherever its format keeps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

GROUPS = (
    *("scales", "codes", "zeros", "offsets", "codebooks", "norms", "biases", "embeddings", "dense", "lora"),
    "activations",
)
"""The kinds of leaves. Where several move, each has its own radius and step."""

QUANTIZED = ("scales", "codes", "zeros", "offsets", "codebooks")
"""Groups of quantized layers, which a format reads from its files."""

INTEGERS = ("codes", "zeros")
"""Groups whose coordinates are always integers and move by whole cells; adapters (``lora``) may be integers too."""


class Leaf(Protocol):
    """One trainable tensor. The contract tests hold every implementation to these laws:

    1. retraction: ``write(read())`` changes no stored byte;
    2. projection: after any move the dtype and the bounds hold;
    3. isolation: writing one leaf changes no other storage;
    4. liveness: a displaced leaf changes the output of its layer, and the return restores it.
    """

    @property
    def name(self) -> str:
        """Name of the tensor in the checkpoint; it keys the noise, so it must never depend on the run."""

    @property
    def group(self) -> str:
        """``scales``, ``norms``, ``dense``, …: leaves that share a radius and a step."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype in the checkpoint's file; an export rounds to it."""

    @property
    def out_axis(self) -> int:
        """Which axis of the tensor counts the outputs of its layer: 1 for GPTQ's scales (groups, out); −1: none."""

    def read(self) -> Tensor:
        """The coordinates, as a fresh float32 tensor of the leaf's shape."""

    def write(self, x: Tensor) -> None:
        """Store coordinates in place; the storage is never re-bound."""


class Overlay(Protocol):
    """What a forward computes with in place of a leaf's storage."""

    def __call__(self, out: Tensor, start: int = 0) -> None:
        """Fill a buffer, float, with as many coordinates as it holds from ``start`` on."""


@runtime_checkable
class LazyLeaf(Leaf, Protocol):
    """A large float tensor, never displaced in storage: the layer's forward asks for ``storage + probe``.

    While ``overlay`` is set, the forward calls it with a buffer of the leaf's shape and uses what it fills in.
    """

    overlay: Overlay | None

    @property
    def storage(self) -> Tensor:
        """The float tensor itself: it is its own master, and updates are written into it."""


class Shared(NamedTuple):
    """How leaves share their noise.

    Attributes:
        key: the noise key of all of them.
        run: neighbouring coordinates along the output axis that take one number, as those of one output do.
    """

    key: str
    run: int = 1


@runtime_checkable
class ScaleLeaf(Leaf, Protocol):
    """The scales of a layer, or a part of them: as all of a layer's scale leaves are multiplied, so are its outputs."""

    @property
    def outputs(self) -> Shared | None:
        """How the scale leaves of a layer share their noise; None where its outputs cannot be multiplied."""

    def multiply(self, factors: Callable[[Sequence[int]], Tensor] | None) -> None:
        """Multiply the layer's outputs in every forward, before the bias; None: no more.

        Args:
            factors: from the numbers of the batch's rows that are in the forward pass to (rows, outputs).
        """


@runtime_checkable
class LatticeLeaf(Leaf, Protocol):
    """Integers that a file packs; their coordinates are float32."""

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest number the file can hold."""

    def packed(self, x: Tensor) -> Tensor:
        """The file's tensor for these coordinates."""


@runtime_checkable
class PackedLeaf(LazyLeaf, Protocol):
    """Integers that stay packed where their layer keeps them, many coordinates to a word.

    The storage is the master. It is never displaced: a forward asks the overlay for ``codes + probe`` of some rows
    in the buffer it computes in. Ranges for the overlay, ``take`` and ``put`` begin and end at rows.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, coordinates of a row)."""

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest number a code can be."""

    @property
    def by_rows(self) -> bool:
        """Whether :meth:`packed` takes some rows of a storage, and gives those rows of the file's tensor."""

    def take(self, start: int, stop: int) -> Tensor:
        """Coordinates ``start … stop − 1``: a fresh int32 tensor."""

    def put(self, start: int, x: Tensor) -> None:
        """Store coordinates from ``start`` on."""

    def packed(self, x: Tensor) -> Tensor:
        """The file's tensor for a storage."""


@dataclass(frozen=True, slots=True, eq=False)
class SparseCodes:
    """Integers at some coordinates of a leaf; the other coordinates are not named.

    Attributes:
        places: int64, rising; indices into the coordinates laid end to end.
        x: int32, the integer at each place.
    """

    places: Tensor
    x: Tensor

    def between(self, start: int, stop: int) -> SparseCodes:
        """Those at ``start … stop − 1``, as coordinates counted from ``start``."""
        ends = torch.tensor([start, stop], device=self.places.device)
        first, last = torch.searchsorted(self.places, ends).tolist()
        return SparseCodes(self.places[first:last] - start, self.x[first:last])

    def within(self, rows: Tensor, columns: int) -> SparseCodes:
        """Those in some rows, int64 (n,) rising, as coordinates of a matrix of these rows alone.

        Args:
            columns: coordinates of a row.
        """
        row = self.places // columns
        at = torch.searchsorted(rows, row).clamp_(max=len(rows) - 1)
        here = rows[at] == row
        return SparseCodes(at[here] * columns + self.places[here] % columns, self.x[here])


@runtime_checkable
class SparseLeaf(PackedLeaf, Protocol):
    """Packed integers of which single ones can be read, stored, and shown in place of what is stored."""

    sparse: SparseCodes | None
    """While it is set, the forward computes with these codes at their places and with the storage elsewhere."""

    def at(self, places: Tensor) -> Tensor:
        """The coordinates at some places: a fresh int32 tensor."""

    def put_at(self, codes: SparseCodes) -> None:
        """Store some coordinates."""
