"""What a calibration is asked for, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """One group of leaves whose numbers are to be found.

    Attributes:
        name: of the group, as terms name it.
        noise: laws of its directions.
        directions: of the group in one step, N: the step multiplies the mean of N slopes.
        newton: share of the greediest stable step that is taken, 0 … 1.
        eps: a radius the user insists on; otherwise the trials choose.
        cells: whole numbers that move by the sign of a comparison: one number, how far in cells, is to be found.
        half_range: half the number of cells there are.
        walk: how far all steps together may walk, root mean square, in units, or of integers in half their range; then
            all of a step counts as noise. ``None``: as far as the calibration thinks, and the unconfirmed share counts.
        checks: batches on which a run too short to rehearse its step checks it, at most; 0: none.
    """

    name: str
    noise: Sequence[str]
    directions: int
    newton: float
    eps: float | None = None
    cells: bool = False
    half_range: float = math.inf
    walk: float | None = None
    checks: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What a calibration says of one group: radius, step and bound, and what they were concluded from."""

    eps: float
    lr: float
    clip: float
    notes: Mapping[str, float]
