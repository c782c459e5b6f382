"""Space: the one place where numbers move.

Law of arithmetic, version 1. For every coordinate, in float32 and in this order, each operation rounded once:

    s  = fl(fl(w₁)·z₁);  s = fl(s + fl(fl(w_k)·z_k))  for k = 2, 3, … in the order of the terms
    p  = fl(unit · link(s)); on a lattice ⌊fl(p + r)⌋ with r uniform on [0, 1), or with feedback to nearest even
    x′ = fl(x + p), then held inside the domain (updates always; probes only on a grid)

Nothing is fused, so the same journal gives the same bits on every machine whose noise law is portable. What a file
stores is the master rounded to its dtype, see :func:`stored`; that is part of the law too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from forq.arithmetic import LAW, as_stored, digest, fitting, inside, linked, rounded, stored
from forq.core import ConfigError, JournalError, Move, Moved, RunError, Term
from forq.leaves import Domain, Domains, Few, LazyLeaf, Leaf, PackedLeaf, StrewnLeaf, relative
from forq.noise import Bits, law, leaf_id

__all__ = ["LAW", "Space", "as_stored", "digest", "stored"]

# Coordinates per pass: the buffers stay in the cache and small beside any model, whatever a leaf's size.
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class _Held:
    leaf: Leaf
    domain: Domain
    key: int
    master: Tensor
    lazy: LazyLeaf | None  # asked once: checking a protocol costs as much as moving a small leaf
    packed: PackedLeaf | None
    strewn: StrewnLeaf | None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.master.shape) if self.packed is None else self.packed.shape

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def rows(self) -> tuple[int, int]:
        """(stride, count), see :class:`forq.noise.Bits`; where all outputs share a leaf each coordinate is a row."""
        if self.leaf.out_axis < 0:
            return 1, self.size
        shape, axis = self.shape, self.leaf.out_axis
        return math.prod(shape[axis + 1 :]), shape[axis]

    @property
    def chunk(self) -> int:
        """Coordinates per pass; whole rows of what is packed."""
        return _CHUNK if self.packed is None else max(1, _CHUNK // self.shape[1]) * self.shape[1]

    def chunks(self) -> Iterator[tuple[int, int]]:
        for start in range(0, self.size, self.chunk):
            yield start, min(start + self.chunk, self.size)

    def take(self, start: int, stop: int) -> Tensor:
        """Coordinates as stored; of what is packed a copy."""
        return self.master.view(-1)[start:stop] if self.packed is None else self.packed.take(start, stop)

    def put(self, start: int, x: Tensor) -> None:
        if self.packed is None:
            self.master.view(-1)[start : start + len(x)].copy_(x)
        else:
            self.packed.put(start, x)


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
            held[leaf.name] = _Held(leaf, domain(leaf, master), leaf_id(leaf.name), master, lazy, packed, strewn)
        if not held:
            raise ConfigError("nothing here can move: the model holds no leaf of the kinds asked for")
        self._held = tuple(held.values())
        self._away = False
        self._lost = 0
        width = max(min(one.chunk, one.size) for one in self._held)
        self._noise = np.empty(width, dtype=np.float32)
        self._few: dict[int, tuple[tuple[int, str], Few]] = {}

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
        touched = [one for one in self._held if _touches(move, one)]
        self._away = True
        try:
            for one in touched:
                strewn = self._strewn(one, move)
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
        changed, cut, self._lost = 0, 0, 0
        for one in self._held:
            if not _touches(move, one):
                continue
            if (strewn := self._strewn(one, move)) is not None:
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
                free = old + fitting(self._step(one, move, start, stop), old, one.domain)
                new = inside(free, old, one.domain)
                cut += int(torch.count_nonzero(new != free))
                kept = new.to(here.dtype)
                changed += int(torch.count_nonzero(kept != here))
                if one.packed is None and here.dtype != torch.float32:
                    self._lost += int(torch.count_nonzero((free != old) & (new == free) & (kept == here)))
                one.put(start, kept)
            if one.lazy is None:
                one.leaf.write(one.master)
        return Moved(changed, cut, self.size, self._lost)

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
        """Put a snapshot's coordinates back, in place.

        Raises:
            JournalError: names or shapes are not this space's.
        """
        if set(masters) != {one.leaf.name for one in self._held}:
            raise JournalError("the snapshot holds other leaves than this run moves")
        for one in self._held:
            if masters[one.leaf.name].shape != one.master.shape:
                raise JournalError(f"{one.leaf.name}: the snapshot has another shape")
        for one in self._held:
            one.master.copy_(masters[one.leaf.name])
            if one.lazy is None:
                one.leaf.write(one.master)

    def digest(self) -> str:
        """Hash of names and masters in name order; equal digests mean equal bits."""
        return digest(self.masters())

    def _return(self, away: Iterable[_Held]) -> None:
        for one in away:
            if one.strewn is not None:
                one.strewn.few = None
            if one.lazy is not None:
                one.lazy.overlay = None
            else:
                one.leaf.write(one.master)
        self._away = False

    def _fill(self, one: _Held, move: Move, out: Tensor) -> None:
        target = out.view(-1)
        for start, stop in one.chunks():
            old = one.take(start, stop)
            old = old.float() if one.packed is None else old
            new = old + fitting(self._step(one, move, start, stop), old, one.domain)
            target[start:stop] = inside(new, old, one.domain) if one.domain.bounds_probes else new

    def _strewn(self, one: _Held, move: Move) -> tuple[StrewnLeaf, Tensor, Tensor] | None:
        """Where a move of single cells touches a leaf of packed integers, and how far; None where it moves many.

        The two sides of a probe and the step that follows are of one direction: its places are found once.
        """
        mine = [term for term in move.terms if term.group in ("all", one.leaf.group)]
        draw = law(mine[0].noise).few if len(mine) == 1 else None
        if draw is None or one.strewn is None or not _is_whole(move, one):
            return None
        seed, noise, weight = mine[0].seed, mine[0].noise, int(mine[0].weight)
        held = self._few.get(one.key)
        if held is None or held[0] != (seed, noise):
            bits, found = Bits(seed, one.key, rows=one.rows), []
            for start, stop in one.chunks():
                places, z = draw(bits, start, stop - start)
                found.append((places + start, z))
            drawn = (np.concatenate(one) for one in zip(*found, strict=True))
            places_, z_ = (torch.from_numpy(part).to(one.master.device) for part in drawn)
            held = self._few[one.key] = (seed, noise), Few(places_, z_.to(torch.int32))
        cells = held[1].x * weight
        return (
            one.strewn,
            held[1].places,
            cells.sign_().mul_(int(move.link.size)) if move.link.kind == "sign" else cells,
        )

    def _cells(self, one: _Held, move: Move, start: int, stop: int) -> Tensor:
        """The same for whole weights of whole noise: integers throughout."""
        total = torch.zeros(stop - start, dtype=torch.int32, device=one.master.device)
        cells = np.empty(stop - start, np.int32)
        for term in move.terms:
            if term.group in ("all", one.leaf.group):
                law(term.noise).draw(Bits(term.seed, one.key, rows=one.rows), start, cells)  # type: ignore[arg-type]
                total.add_(torch.from_numpy(cells).to(total.device), alpha=int(term.weight))
        return total.sign_().mul_(int(move.link.size)) if move.link.kind == "sign" else total

    def _step(self, one: _Held, move: Move, start: int, stop: int) -> Tensor:
        """p = unit · link(Σ w·z) for coordinates ``start … stop − 1``: fresh, float32, or int32 where all is whole."""
        if one.packed is not None and _is_whole(move, one):
            return self._cells(one, move, start, stop)
        total = self._sum(one, move.terms, start, stop)
        if total is None:
            raise RunError(f"{one.leaf.name}: a move that does not touch this leaf was applied to it")
        if move.link.kind == "feedback":
            return self._fed_back(one, move, total, start, stop)
        total = linked(total, move.link, one.key, start)
        unit = one.domain.unit
        total = total.mul_(unit.view(-1)[start:stop].float() if isinstance(unit, Tensor) else unit)
        if not one.domain.lattice:
            return total
        wanted = int(torch.count_nonzero(total))
        whole = rounded(total, move.terms[0].seed, one.key, start)
        self._lost += max(wanted - int(torch.count_nonzero(whole)), 0)
        return whole

    def _sum(self, one: _Held, terms: Iterable[Term], start: int, stop: int) -> Tensor | None:
        """Σ w·z of the terms that touch a leaf, fresh, or None."""
        total: Tensor | None = None
        for term in terms:
            if term.group not in ("all", one.leaf.group):
                continue
            noise = self._noise[: stop - start]
            law(term.noise).draw(Bits(term.seed, one.key, rows=one.rows), start, noise)
            drawn = torch.from_numpy(noise).to(one.master.device) * term.weight
            total = drawn if total is None else total.add_(drawn)
        return total

    def _fed_back(self, one: _Held, move: Move, total: Tensor, start: int, stop: int) -> Tensor:
        """round(unit·s + γ·e), with e re-derived from zero over the moves before: no residual is stored."""
        if not one.domain.lattice:
            raise ConfigError(
                f"{one.leaf.name}: rule.feedback carries what rounding to whole cells leaves; take integers"
            )
        unit = one.domain.unit
        cells = unit.view(-1)[start:stop].float() if isinstance(unit, Tensor) else unit
        left = torch.zeros_like(total)
        for terms in move.link.past:
            wanted = self._sum(one, terms, start, stop)
            left = left.mul_(move.link.size)
            left = left if wanted is None else left.add_(wanted.mul_(cells))
            left = left.sub_(left.round())
        total = total.mul_(cells).add_(left.mul_(move.link.size))
        whole = total.round()
        self._lost += int(torch.count_nonzero(total)) - int(torch.count_nonzero(whole))
        return whole


def _is_whole(move: Move, one: _Held) -> bool:
    """Whether a move of packed integers takes no floating point at all: then the same numbers, without one."""
    mine = [term for term in move.terms if term.group in ("all", one.leaf.group)]
    size = move.link.size if move.link.kind == "sign" else 1.0
    whole = (
        move.link.kind in ("identity", "sign")
        and all(term.weight.is_integer() and law(term.noise).whole for term in mine)
        and float(size).is_integer()
    )
    return whole and isinstance(one.domain.unit, float) and one.domain.unit == 1.0


def _show_stored(leaf: LazyLeaf, out: Tensor) -> None:
    out.copy_(stored(leaf, leaf.storage))


def _touches(move: Move, one: _Held) -> bool:
    return any(term.group in ("all", one.leaf.group) for term in move.terms)
