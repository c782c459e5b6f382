"""Space: the one place where numbers move.

Law of arithmetic, version 1. For every coordinate, in float32 and in this order, each operation rounded once:

    s  = fl(fl(w₁)·z₁);  s = fl(s + fl(fl(w_k)·z_k))  for k = 2, 3, … in the order of the terms
    p  = fl(unit · link(s)); on a lattice ⌊fl(p + r)⌋ with r uniform on [0, 1), or with feedback to nearest even
    x′ = fl(x + p), then held inside the domain (updates always; probes only on a grid)

With ``skip_edge`` a coordinate whose step or its opposite would leave the range gets p = 0.
:mod:`forq.coordinates.steps` computes p, and :meth:`forq.coordinates.masters.base.Master.apply` x′.

Nothing is fused, so the same journal gives the same bits on every machine whose noise law is portable. What a file
stores is the master rounded to its dtype, see :func:`stored`; that is part of the law too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor

from forq.checkpoints import rows_of
from forq.coordinates.arithmetic import LAW, as_stored, checksum, digest, stored
from forq.coordinates.directions import NoiseBuffer
from forq.coordinates.domain import Domains, Unit, relative
from forq.coordinates.leaf import Leaf, Shared
from forq.coordinates.masters import Master, master_of
from forq.errors import ConfigError, JournalError, RunError
from forq.scalars.moves import Move, Moved

__all__ = ["LAW", "Space", "as_stored", "digest", "stored"]


class Space:
    """The coordinates of a run: the master of every leaf, and the law that moves them.

    Args:
        leaves: what moves; at least one, names unique.
        domain: from a leaf and its coordinates to where they may go; see :func:`relative`.
        unit: name of the unit that ``domain`` measures in, where it has one.
        chunk: coordinates computed at a time; by default what suits the device. It changes no bit.
        shared: from a leaf to how it shares its noise with the other scales of its layer, where probes multiply the
            layer or its outputs (:attr:`forq.scalars.moves.Move.by_row`), or to None.

    Attributes:
        unit: as given; ``None`` where a caller built its own domains.

    Raises:
        ConfigError: no leaf, or two of one name.
    """

    def __init__(
        self,
        leaves: Iterable[Leaf],
        domain: Domains = relative,
        *,
        unit: Unit | None = None,
        chunk: int | None = None,
        shared: Callable[[Leaf], Shared | None] | None = None,
    ) -> None:
        masters: dict[str, Master] = {}
        buffer = NoiseBuffer()
        for leaf in sorted(leaves, key=lambda leaf: leaf.name):
            if leaf.name in masters:
                raise ConfigError(f"two leaves are called {leaf.name!r}")
            master = master_of(leaf, domain, buffer, chunk)
            if shared is not None and (own := shared(leaf)) is not None:
                master.share(own)
            masters[leaf.name] = master
        if not masters:
            raise ConfigError("nothing here can move: the model holds no leaf of the kinds asked for")
        self.unit = unit
        self._masters = tuple(masters.values())
        self._displaced = False

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The leaves in name order."""
        return tuple(master.leaf for master in self._masters)

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return sum(master.size for master in self._masters)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups that occur, sorted."""
        return tuple(sorted({master.leaf.group for master in self._masters}))

    @property
    def counts(self) -> dict[str, int]:
        """Number of coordinates by group, in the order of their names."""
        counts = dict.fromkeys(self.groups, 0)
        for master in self._masters:
            counts[master.leaf.group] += master.size
        return counts

    @property
    def half_range(self) -> dict[str, float]:
        """Half the number of cells of a lattice, by group, the smallest of each; other groups have none."""
        halves: dict[str, float] = {}
        for master in self._masters:
            group, domain = master.leaf.group, master.domain
            if domain.lattice and domain.low is not None and domain.high is not None:
                half = (domain.high - domain.low + 1.0) / 2.0
                halves[group] = min(half, halves.get(group, half))
        return halves

    def table(self) -> list[list[str | int]]:
        """What it takes to make the leaves from files: name, group, output axis, dtype of the master.

        A fifth entry is the noise key of a leaf that shares one, a sixth the length of a run where it is not 1.
        """
        return [
            [
                master.leaf.name,
                master.leaf.group,
                master.leaf.out_axis,
                str(master.tensor.dtype).removeprefix("torch."),
                *_listed(master.shared),
            ]
            for master in self._masters
        ]

    @contextmanager
    def displaced(self, move: Move) -> Iterator[None]:
        """Show the model ``x + move`` inside the block; the return is a copy of the masters, also on an error.

        Raises:
            RunError: a displacement is already in force.
        """
        if self._displaced:
            raise RunError("the space is already displaced: probes do not nest")
        touched = [master for master in self._masters if master.touched_by(move)]
        self._displaced = True
        try:
            for master in touched:
                master.show(move)
            yield
        finally:
            self._return(touched)

    def apply(self, move: Move) -> Moved:
        """Move the masters, show them to the model, and count the coordinates that changed, were cut or rounded away.

        Raises:
            RunError: a displacement is in force.
        """
        if self._displaced:
            raise RunError("the space is displaced: leave the probe before applying a move")
        moved = Moved()
        for master in self._masters:
            if master.touched_by(move):
                moved += master.apply(move)
        return replace(moved, total=self.size)

    def exported(self) -> dict[str, Tensor]:
        """Every leaf as the checkpoint's file will hold it: the masters, rounded to the file's dtype."""
        return {master.leaf.name: master.export() for master in self._masters}

    @contextmanager
    def as_exported(self) -> Iterator[None]:
        """Show the model the exported values inside the block, so that what is scored is what is saved.

        Raises:
            RunError: a displacement is in force.
        """
        if self._displaced:
            raise RunError("the space is displaced: leave the probe before scoring the export")
        self._displaced = True
        try:
            for master in self._masters:
                master.show_export()
            yield
        finally:
            self._return(self._masters)

    def masters(self) -> dict[str, Tensor]:
        """The coordinates themselves, by leaf name: what a snapshot keeps. Not copies."""
        return {master.leaf.name: master.tensor for master in self._masters}

    def restore(self, masters: Mapping[str, Tensor]) -> None:
        """Put a snapshot's coordinates back, in place; each is asked for once, and not kept.

        Raises:
            JournalError: names or shapes are not this space's.
        """
        if set(masters) != {master.leaf.name for master in self._masters}:
            raise JournalError("the snapshot holds other leaves than this run moves")
        for master in self._masters:
            master.restore(rows_of(masters, master.leaf.name))

    def digest(self) -> str:
        """Hash of names and masters in name order; equal digests mean equal bits."""
        return digest(self.masters())

    def checksum(self) -> int:
        """A cheap sum over the masters' bits, see :func:`forq.coordinates.arithmetic.checksum`."""
        return checksum(self.masters())

    def _return(self, shown: Iterable[Master]) -> None:
        for master in shown:
            master.hide()
        self._displaced = False


def _listed(shared: Shared | None) -> list[str | int]:
    if shared is None:
        return []
    return [shared.key] if shared.run == 1 else [shared.key, shared.run]
