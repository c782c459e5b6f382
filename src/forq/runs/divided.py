"""An oracle whose probes may be measured in several processes, and what such a group of processes offers a trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from forq.coordinates.space import Space
from forq.models.loaded import LoadedModel
from forq.scalars.losses import Losses
from forq.scalars.moves import Move
from forq.scalars.protocols import Oracle
from forq.tasks import Score, Task

Numbers = NDArray[np.float64]
"""What one process measured of one probe: a flat array, which only the oracle itself reads."""


class Divided(Protocol):
    """An oracle in two halves. ``join`` of what ``measure`` yields is what the oracle answers, to the last bit.

    Attributes:
        from_point: whether every process measures the first probe, the point itself, because other probes are
            compared with it.
        levels: the numbers of a part that are losses. Two processes of different kernels may disagree about the level
            of a loss; what a probe adds to the loss of the point is comparable.
    """

    @property
    def from_point(self) -> bool: ...

    @property
    def levels(self) -> slice: ...

    def __call__(self, step: int, probes: Sequence[Move]) -> list[Losses]: ...

    def measure(self, step: int, probes: Sequence[Move], places: Sequence[int]) -> Iterator[Numbers]:
        """What this process measures of the probes at ``places``, in that order; one forward pass each.

        Where ``from_point`` is true, the point itself is measured too, before the others.
        """
        ...

    def join(self, step: int, probes: Sequence[Move], parts: Sequence[Numbers]) -> list[Losses]:
        """The answers from what was measured of every probe, in the order of the probes."""
        ...


class TeamLike(Protocol):
    """Several processes that answer as one; see :class:`forq.runs.ranks.team.Team`."""

    def oracle(self, own: Divided, space: Space) -> Oracle:
        """An oracle that deals the probes of a step to the processes."""
        ...

    def evaluate(self, task: Task, model: LoadedModel) -> Score:
        """The score on the validation rows; its batches are dealt where the task allows it."""
        ...
