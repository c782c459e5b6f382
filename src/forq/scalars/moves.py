"""Seeded directions and moves: the values that probes, gradient estimates and updates share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from forq.errors import ConfigError


def direction_seed(run: int, step: int, index: int = 0) -> int:
    """Pack (run seed, step, direction index) into one 128-bit seed, without arithmetic that could collide.

    Args:
        run: the user's seed, 0 ≤ run < 2^64.
        step: 0 ≤ step < 2^40.
        index: which direction of the step, 0 ≤ index < 2^24.

    Raises:
        ConfigError: a field does not fit.

    Example:
        >>> direction_seed(1, 2, 3) == (1 << 64) + (2 << 24) + 3
        True
    """
    for name, value, bits in (
        ("seed", run, _RUN_BITS),
        ("step", step, _STEP_BITS),
        ("index", index, _INDEX_BITS),
    ):
        if not 0 <= value < 1 << bits:
            raise ConfigError(f"{name} must lie in 0 … 2^{bits} − 1, found {value}")
    return run << (_STEP_BITS + _INDEX_BITS) | step << _INDEX_BITS | index


OUTPUTS = "outputs"
"""Group of the leaves whose layer can multiply its outputs row by row, see :attr:`Move.by_row`."""


@dataclass(frozen=True, slots=True)
class Term:
    """One seeded direction: ``weight · z(seed)``, with z drawn by the law named ``noise``.

    Attributes:
        seed: names the direction; see :func:`direction_seed`.
        weight: scalar factor, in leaf units (multiples of a leaf's ``unit``).
        noise: law of z: ``rademacher``, ``gaussian``, ``uniform_grid:3``, ``sign:uniform_grid:3``, …
        group: the leaves it touches: ``all``, the name of one group, or :data:`OUTPUTS`.
        row: of a term of :data:`OUTPUTS`: the row of the batch whose direction it is. z is one number an output then,
            and those of row n are the numbers n·outputs … (n + 1)·outputs − 1 of the sequence of the seed.
    """

    seed: int
    weight: float
    noise: str = "rademacher"
    group: str = "all"
    row: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """What happens to the sum of the terms, elementwise, before it is added.

    ``identity``: s. ``sign``: size · sgn(s), the step of ZO-SignSGD. ``stochastic``: s rounded to a whole
    number of cells, up with probability equal to the fraction, drawn from ``seed`` (QuZO). ``feedback``: s plus size
    times what rounding left of the moves before, ``past``, to nearest (QES); of a lattice only.
    """

    kind: Literal["identity", "sign", "stochastic", "feedback"] = "identity"
    size: float = 1.0
    seed: int = 0
    past: tuple[tuple[Term, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """``x ← x + unit · link(Σ_k weight_k · z_k)``: a probe, a gradient estimate or an update.

    A move without terms is the point itself.

    Attributes:
        by_row: of a probe with one term of :data:`OUTPUTS`: each row of the batch sees the term's direction of its own
            row. So a layer multiplies its outputs by 1 + weight · z, before the bias.
    """

    terms: tuple[Term, ...] = ()
    link: Link = field(default_factory=Link)
    by_row: bool = False

    def scaled(self, factor: float) -> Move:
        """The same directions, ``factor`` times as far."""
        if self.link.kind == "sign":  # which no weight makes longer
            return replace(self, link=replace(self.link, size=self.link.size * factor))
        return replace(self, terms=tuple(replace(term, weight=term.weight * factor) for term in self.terms))


HERE = Move()


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did.

    Attributes:
        changed, total: coordinates that changed, and coordinates in all.
        cut: those a bound held back.
        rounded_away: those that should have moved by part of a cell of a lattice, or of the last place of a master that
            is not float32, and were rounded to stay.
    """

    changed: int = 0
    cut: int = 0
    total: int = 0
    rounded_away: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(
            self.changed + other.changed,
            self.cut + other.cut,
            self.total + other.total,
            self.rounded_away + other.rounded_away,
        )


_RUN_BITS, _STEP_BITS, _INDEX_BITS = 64, 40, 24
