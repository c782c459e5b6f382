"""The question to a calibration and its answer, for one group of leaves."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

from forq.scalars.losses import Losses
from forq.scalars.moves import Move, Term, direction_seed

Answer = TypeVar("Answer")

Probing: TypeAlias = Generator[tuple[Move, ...], Sequence[Losses], Answer]
"""A part of a calibration: yields the probes of a step, is sent their losses, returns its answer."""


@dataclass(frozen=True, slots=True)
class GroupRequest:
    """One group of leaves whose numbers a calibration measures.

    Attributes:
        name: of the group, as terms name it.
        noise: laws of its directions.
        directions: directions of the group in one step, N: the step multiplies the mean of N slopes.
        newton: share of the greediest stable step that is taken, 0 … 1.
        eps: a radius the user insists on; otherwise the trials choose.
        cells: the group's integers move by whole cells; the calibration measures one number, how far.
        half_range: half the number of cells there are.
        walk: how far all steps together may walk, root mean square, in units, or for integers in half of their range;
            then all of a step counts as noise. ``None``: the calibration's own bound, and only the unconfirmed share
            counts.
        cost: what all steps together may cost by their noise, as a share of the loss where the run begins; for whole
            cells. ``None``: no bound.
        checks: most batches on which a run too short to rehearse its step checks it; 0: none.
        radius_only: the step sets its own length, so only ε is open.
    """

    name: str
    noise: Sequence[str]
    directions: int
    newton: float
    eps: float | None = None
    cells: bool = False
    half_range: float = math.inf
    walk: float | None = None
    cost: float | None = None
    checks: int = 0
    radius_only: bool = False

    def term(self, seed: int, step: int, k: int, weight: float) -> Term:
        """``weight`` times direction k of a step; the group's laws take turns."""
        return Term(direction_seed(seed, step, k), weight, self.noise[k % len(self.noise)], self.name)


@dataclass(frozen=True, slots=True)
class GroupResult:
    """The numbers of one group.

    Attributes:
        eps, lr, clip: probe radius, learning rate and bound of a slope.
        slope: root mean square of the measured slopes.
        radius: how far whole cells move, root mean square; ``None`` where the group does not move by cells.
        notes: the numbers above and what they follow from, for people and the journal.
    """

    eps: float
    lr: float
    clip: float
    slope: float
    notes: Mapping[str, float]
    radius: float | None = None


class Measured(NamedTuple):
    """A group's numbers, and the number of the next step."""

    result: GroupResult
    number: int
