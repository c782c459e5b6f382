"""An oracle that asks a model: one forward pass for every probe, all of a step on the same batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch

from forq.coordinates.space import Space
from forq.runs.divided import Numbers
from forq.scalars.losses import Losses
from forq.scalars.moves import Move

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Local(Generic[Batch]):
    """Displaces the space by each probe and measures the loss; see :class:`forq.runs.divided.Divided`.

    A part holds the number of forward passes, the mean, and the rows' losses where they are recorded.

    Attributes:
        space: what is displaced; restored after every probe, also when the loss raises.
        batch: the step's batch, a pure function of the step, drawn once and shared by all probes.
        loss: a batch's loss under the displaced weights: a number, or :class:`~forq.scalars.losses.Losses` where the
            rows' losses are to be recorded. NaN and infinities are answers; an exception ends the run.
    """

    from_point: ClassVar[bool] = False
    levels: ClassVar[slice] = slice(1, None)

    space: Space
    batch: Callable[[int], Batch]
    loss: Callable[[Batch], float | Losses]

    def __call__(self, step: int, probes: Sequence[Move]) -> list[Losses]:
        return self.join(step, probes, list(self.measure(step, probes, range(len(probes)))))

    def measure(self, step: int, probes: Sequence[Move], places: Sequence[int]) -> Iterator[Numbers]:
        batch = self.batch(step)
        for place in places:
            with self.space.displaced(probes[place]), torch.no_grad():
                loss = self.loss(batch)
            answer = loss if isinstance(loss, Losses) else Losses(float(loss))
            yield np.array([answer.forwards, answer.mean, *(answer.each or ())], np.float64)

    def join(self, step: int, probes: Sequence[Move], parts: Sequence[Numbers]) -> list[Losses]:
        answers = []
        for forwards, mean, *each in (part.tolist() for part in parts):
            answers.append(Losses(mean, tuple(each) or None, int(forwards)))
        return answers
