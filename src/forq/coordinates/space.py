"""Space: the one place where numbers move.

Law of arithmetic, version 1. For every coordinate, in float32 and in this order, each operation rounded once:

    s  = fl(fl(w₁)·z₁);  s = fl(s + fl(fl(w_k)·z_k))  for k = 2, 3, … in the order of the terms
    p  = fl(unit · link(s)); on a lattice ⌊fl(p + r)⌋ with r uniform on [0, 1), or with feedback to nearest even
    x′ = fl(x + p), then held inside the domain (updates always; probes only on a grid)

Nothing is fused, so the same journal gives the same bits on every machine whose noise law is portable. What a file
stores is the master rounded to its dtype, see :func:`stored`; that is part of the law too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from forq.coordinates.arithmetic import LAW, as_stored, digest, fitting, inside, stored
from forq.coordinates.domain import Domains, relative
from forq.coordinates.leaf import Few, LazyLeaf, Leaf, PackedLeaf, StrewnLeaf
from forq.coordinates.steps import Held, Steps
from forq.errors import ConfigError, JournalError, RunError
from forq.noise.bits import leaf_id
from forq.scalars.moves import Move, Moved

__all__ = ["LAW", "Space", "as_stored", "digest", "stored"]


class Space:
    """The coordinates of a run: float32 masters of every leaf, and the law that moves them.

    Args:
        leaves: what moves; at least one, names unique.
        domain: from a leaf and its coordinates to where they may go; see :func:`relative`.

    Raises:
        ConfigError: no leaf, or two of one name.
    """

    def __init__(self, leaves: Iterable[Leaf], domain: Domains = relative) -> None:
        held = {}
        for leaf in sorted(leaves, key=lambda leaf: leaf.name):
            if leaf.name in held:
                raise ConfigError(f"two leaves are called {leaf.name!r}")
            lazy = leaf if isinstance(leaf, LazyLeaf) else None
            master = leaf.read() if lazy is None else lazy.storage
            packed = leaf if isinstance(leaf, PackedLeaf) else None
            strewn = leaf if isinstance(leaf, StrewnLeaf) else None
            held[leaf.name] = Held(leaf, domain(leaf, master), leaf_id(leaf.name), master, lazy, packed, strewn)
        if not held:
            raise ConfigError("nothing here can move: the model holds no leaf of the kinds asked for")
        self._held = tuple(held.values())
        self._away = False
        self._steps = Steps(max(min(one.chunk, one.size) for one in self._held))

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The leaves in name order."""
        return tuple(one.leaf for one in self._held)

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return sum(one.size for one in self._held)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups that occur, sorted."""
        return tuple(sorted({one.leaf.group for one in self._held}))

    @property
    def counts(self) -> dict[str, int]:
        """Number of coordinates by group, in the order of their names."""
        found = dict.fromkeys(self.groups, 0)
        for one in self._held:
            found[one.leaf.group] += one.size
        return found

    @property
    def room(self) -> dict[str, float]:
        """Half of the cells a lattice has, by group; groups that are no lattice have none."""
        found: dict[str, float] = {}
        for one in self._held:
            if one.domain.lattice and one.domain.low is not None and one.domain.high is not None:
                half = (one.domain.high - one.domain.low + 1.0) / 2.0
                found[one.leaf.group] = min(half, found.get(one.leaf.group, half))
        return found

    def table(self) -> list[list[str | int]]:
        """What rebuilding the leaves from files takes: name, group, output axis, dtype of the master."""
        return [
            [one.leaf.name, one.leaf.group, one.leaf.out_axis, str(one.master.dtype).removeprefix("torch.")]
            for one in self._held
        ]

    @contextmanager
    def displaced(self, move: Move) -> Iterator[None]:
        """Show the model ``x + move`` inside the block; the return is a copy of the masters, also on an error.

        Raises:
            RunError: a displacement is already in force.
        """
        if self._away:
            raise RunError("the space is already displaced: probes do not nest")
        touched = [one for one in self._held if one.mine(move.terms)]
        self._away = True
        try:
            for one in touched:
                strewn = self._steps.strewn(one, move)
                if strewn is not None:
                    leaf, places, cells = strewn
                    old = leaf.at(places)
                    leaf.few = Few(places, inside(old + fitting(cells, old, one.domain), old, one.domain))
                elif one.lazy is not None:
                    one.lazy.overlay = partial(self._fill, one, move)
                else:
                    away = torch.empty_like(one.master)
                    self._fill(one, move, away)
                    one.leaf.write(away)
            yield
        finally:
            self._return(touched)

    def apply(self, move: Move) -> Moved:
        """Move the masters, show them to the model, and say how many coordinates changed and were cut."""
        if self._away:
            raise RunError("the space is displaced: leave the probe before applying a move")
        changed, cut, self._steps.lost = 0, 0, 0
        for one in self._held:
            if not one.mine(move.terms):
                continue
            if (strewn := self._steps.strewn(one, move)) is not None:
                leaf, places, cells = strewn
                old = leaf.at(places)
                free = old + fitting(cells, old, one.domain)
                new = inside(free, old, one.domain)
                cut += int(torch.count_nonzero(new != free))
                changed += int(torch.count_nonzero(new != old))
                leaf.put_at(Few(places, new))
                continue
            for start, stop in one.chunks():
                here = one.take(start, stop)
                old = here.float() if one.packed is None else here
                free = old + fitting(self._steps.step(one, move, start, stop), old, one.domain)
                new = inside(free, old, one.domain)
                cut += int(torch.count_nonzero(new != free))
                kept = new.to(here.dtype)
                changed += int(torch.count_nonzero(kept != here))
                if one.packed is None and here.dtype != torch.float32:
                    self._steps.lost += int(torch.count_nonzero((free != old) & (new == free) & (kept == here)))
                one.put(start, kept)
            if one.lazy is None:
                one.leaf.write(one.master)
        return Moved(changed, cut, self.size, self._steps.lost)

    def exported(self) -> dict[str, Tensor]:
        """Every leaf as the checkpoint's file will hold it: the masters, rounded to the file's dtype."""
        return {one.leaf.name: stored(one.leaf, one.master) for one in self._held}

    @contextmanager
    def as_exported(self) -> Iterator[None]:
        """Show the model the exported values inside the block, so that what is scored is what is saved."""
        if self._away:
            raise RunError("the space is displaced: leave the probe before scoring the export")
        self._away = True
        try:
            for one in self._held:
                if one.packed is not None:  # what is packed is what the file holds
                    continue
                if one.lazy is not None:
                    one.lazy.overlay = partial(_show_stored, one.lazy)
                else:
                    one.leaf.write(as_stored(one.leaf, one.master))
            yield
        finally:
            self._return(self._held)

    def masters(self) -> dict[str, Tensor]:
        """The coordinates themselves, by leaf name: what a snapshot keeps. Not copies."""
        return {one.leaf.name: one.master for one in self._held}

    def restore(self, masters: Mapping[str, Tensor]) -> None:
        """Put a snapshot's coordinates back, in place; each is asked for once, and not kept.

        Raises:
            JournalError: names or shapes are not this space's.
        """
        if set(masters) != {one.leaf.name for one in self._held}:
            raise JournalError("the snapshot holds other leaves than this run moves")
        for one in self._held:
            kept = masters[one.leaf.name]
            if kept.shape != one.master.shape:
                raise JournalError(f"{one.leaf.name}: the snapshot has another shape")
            one.master.copy_(kept)
            if one.lazy is None:
                one.leaf.write(one.master)

    def digest(self) -> str:
        """Hash of names and masters in name order; equal digests mean equal bits."""
        return digest(self.masters())

    def _return(self, away: Iterable[Held]) -> None:
        for one in away:
            if one.strewn is not None:
                one.strewn.few = None
            if one.lazy is not None:
                one.lazy.overlay = None
            else:
                one.leaf.write(one.master)
        self._away = False

    def _fill(self, one: Held, move: Move, out: Tensor) -> None:
        target = out.view(-1)
        for start, stop in one.chunks():
            old = one.take(start, stop)
            old = old.float() if one.packed is None else old
            new = old + fitting(self._steps.step(one, move, start, stop), old, one.domain)
            target[start:stop] = inside(new, old, one.domain) if one.domain.bounds_probes else new


def _show_stored(leaf: LazyLeaf, out: Tensor) -> None:
    out.copy_(stored(leaf, leaf.storage))
