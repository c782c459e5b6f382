"""The model at hand answers: one forward pass for every probe, all of a step on the same batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from forq.coordinates.space import Space
from forq.scalars.moves import Move

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Local(Generic[Batch]):
    """Shows the model each probe and asks for its loss.

    Attributes:
        space: what is displaced; restored after every probe, also when the loss raises.
        batch: the step's batch, a pure function of the step, drawn once and shared by all probes.
        loss: a batch's loss under the weights now shown; a float, any kind of number but an exception.
    """

    space: Space
    batch: Callable[[int], Batch]
    loss: Callable[[Batch], float]

    def __call__(self, step: int, probes: Sequence[Move]) -> list[float]:
        batch = self.batch(step)
        losses = []
        for probe in probes:
            with self.space.displaced(probe), torch.no_grad():
                losses.append(float(self.loss(batch)))
        return losses
