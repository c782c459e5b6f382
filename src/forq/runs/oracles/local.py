"""An oracle that asks a model: one forward pass for every probe, all of a step on the same batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from forq.coordinates.space import Space
from forq.scalars.losses import Losses
from forq.scalars.moves import Move

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Local(Generic[Batch]):
    """Displaces the space by each probe and measures the loss.

    Attributes:
        space: what is displaced; restored after every probe, also when the loss raises.
        batch: the step's batch, a pure function of the step, drawn once and shared by all probes.
        loss: a batch's loss under the displaced weights: a number, or :class:`~forq.scalars.losses.Losses` where the
            rows' losses are to be recorded. NaN and infinities are answers; an exception ends the run.
    """

    space: Space
    batch: Callable[[int], Batch]
    loss: Callable[[Batch], float | Losses]

    def __call__(self, step: int, probes: Sequence[Move]) -> list[Losses]:
        batch = self.batch(step)
        answers = []
        for probe in probes:
            with self.space.displaced(probe), torch.no_grad():
                loss = self.loss(batch)
                answers.append(loss if isinstance(loss, Losses) else Losses(float(loss)))
        return answers
