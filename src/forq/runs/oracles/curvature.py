"""An oracle that measures curvature too: what each probe changes in the model's predictions, and products of that.

It costs no further forward pass. All reductions are in float64 on the CPU, and are rounded to ``DIGITS`` before anyone
uses them, so that a journal holds few bytes and a replay decides by the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forq.coordinates.space import Space
from forq.noise.bits import Bits, leaf_id
from forq.runs.divided import Numbers
from forq.scalars.losses import Confirmed, Losses, Own
from forq.scalars.moves import Move, direction_seed
from forq.scalars.quadratic import DAMPINGS, damped, kind_of
from forq.tasks.objectives.predictions import Predictions, Uniform

Batch = TypeVar("Batch")
Float64 = NDArray[np.float64]

DIGITS = 4
FOLDS = 8
"""Parts of a batch; each is held out once."""


def neighbours(rows: int) -> list[NDArray[np.int64]]:
    """Parts of neighbouring rows, for batches in which the classes take turns; a single row is one part."""
    return np.array_split(np.arange(rows), min(FOLDS, rows))


def across(rows: int) -> list[NDArray[np.int64]]:
    """Parts with rows from all of the batch, for batches in an order: forth and back over the parts, row by row.

    Neighbouring rows would hold a part of the order for themselves, and the others nothing that confirms it.
    """
    count = min(FOLDS, rows)
    turn = np.arange(rows) % (2 * count)
    part = np.minimum(turn, 2 * count - 1 - turn)
    return [np.flatnonzero(part == which) for which in range(count)]


@dataclass(frozen=True, slots=True)
class WithCurvature(Generic[Batch]):
    """Displaces the space by each probe and measures the loss and the predictions.

    It can be measured in several processes (:class:`forq.runs.divided.Divided`). The part of the point holds
    mean, number of rows, the rows' losses, and of every output the row and the weight; of a probe that all rows share:
    mean, rise of every row, change of every output; of a probe by row: mean, mean curvature, rise of every row.

    Attributes:
        space: what is displaced; restored after every probe, also when the loss raises.
        batch: the step's batch, a pure function of the step.
        predictions: of a batch under the displaced weights, see :class:`forq.tasks.Predicts`.
        seed: of what is drawn from the model.
        dampings: those whose steps the held-out rows judge.
        parts: of a batch of so many rows, each held out once.
    """

    from_point: ClassVar[bool] = True
    levels: ClassVar[slice] = slice(0, 1)

    space: Space
    batch: Callable[[int], Batch]
    predictions: Callable[[Batch, Predictions | None, Uniform], Predictions]
    seed: int
    dampings: Sequence[float] = DAMPINGS
    parts: Callable[[int], list[NDArray[np.int64]]] = neighbours

    def __call__(self, step: int, probes: Sequence[Move]) -> list[Losses]:
        return self.join(step, probes, list(self.measure(step, probes, range(len(probes)))))

    def measure(self, step: int, probes: Sequence[Move], places: Sequence[int]) -> Iterator[Numbers]:
        batch = self.batch(step)
        bits = Bits(direction_seed(self.seed, step), leaf_id("drawn from the model"))

        def uniform(count: int) -> Tensor:
            return torch.from_numpy((bits.uniform32(0, count).astype(np.float64) + 0.5) * 2.0**-32)

        def at(probe: Move, here: Predictions | None) -> Predictions:
            with self.space.displaced(probe), torch.no_grad():
                return self.predictions(batch, here, uniform)

        if not places:
            return
        here = at(probes[0], None)
        for place in places:
            if place == 0:
                held = (here.each.numpy(), here.row.numpy(), here.weights.numpy())
                yield np.concatenate([[here.mean, len(here.each)], *held])
                continue
            there = at(probes[place], here)
            rise = (there.each - here.each).numpy()
            change = (there.outputs.double() - here.outputs.double()).numpy()
            if probes[place].by_row:
                own = _own(rise, change, here)
                yield np.array([there.mean, own.bend, *own.rises])
            else:
                yield np.concatenate([[there.mean], rise, change])

    def join(self, step: int, probes: Sequence[Move], parts: Sequence[Numbers]) -> list[Losses]:
        means = [float(part[0]) for part in parts]
        shared = [place for place in range(1, len(parts)) if not probes[place].by_row]
        if not shared or not np.isfinite(means[0]):
            return [Losses(mean) for mean in means]
        count = int(parts[0][1])
        row, weights = parts[0][2 + count :].reshape(2, -1)
        rises = np.array([parts[place][1 : 1 + count] for place in shared])
        whole = np.isfinite(np.array(means)[shared])
        u = np.where(whole[:, None], np.array([parts[place][1 + count :] for place in shared]), 0.0)
        folds = self.parts(count)
        products = np.stack([_products(u, weights, np.isin(row, fold)) for fold in folds])
        slopes = np.stack([np.where(whole, rises[:, fold].mean(axis=1), 0.0) for fold in folds])
        sizes = np.array([len(fold) for fold in folds]) / count
        fisher = products.sum(axis=0)
        kinds = [kind_of(probes[place]) for place in shared]
        confirmed = _confirmed(slopes, products / sizes[:, None, None], sizes, kinds, self.dampings)
        first = Losses(means[0], fisher=(), confirmed=confirmed)
        found = {
            place: Losses(means[place], fisher=tuple(_rounded(x) for x in fisher[k, : k + 1]))
            for k, place in enumerate(shared)
        }
        for place in range(1, len(parts)):
            if probes[place].by_row:
                bend, *own = parts[place][1:].tolist()
                found[place] = Losses(means[place], own=Own(tuple(own), bend))
        return [first, *(found[place] for place in range(1, len(parts)))]


def _own(rise: Float64, change: Float64, here: Predictions) -> Own:
    """Of a probe by row: each row's rise without the curvature that it holds, and the mean of the curvatures."""
    count = len(here.each)
    bends = np.bincount(here.row.numpy(), here.weights.numpy() * change**2, minlength=count) * count
    return Own(tuple(_rounded(x) for x in rise - 0.5 * bends), _rounded(bends.mean()))


def _products(u: Float64, weights: Float64, mask: NDArray[np.bool_]) -> Float64:
    part = u[:, mask]
    found: Float64 = (part * weights[mask]) @ part.T
    return found


def _confirmed(
    slopes: Float64, parts: Float64, sizes: Float64, kinds: list[str], dampings: Sequence[float]
) -> tuple[Confirmed, ...]:
    """For each damping, slope and curvature on a part along the step of all other parts; means over the parts.

    Args:
        slopes: (parts, probes), of each part's own mean loss; ``parts``: the same of its curvature.
        sizes: share of the rows in each part.
    """
    count = len(slopes)
    if count < 2:  # nothing is left to confirm anything
        return (Confirmed(0.0, 0.0, 0.0),) * len(dampings)
    found = np.zeros((len(dampings), count, 2))
    for out in range(count):
        rest = np.delete(np.arange(count), out)
        share = sizes[rest] / sizes[rest].sum()
        fisher = np.einsum("f,fjk->jk", share, parts[rest])
        rises = (share @ slopes[rest] - 0.5 * np.diag(fisher)).tolist()
        held = slopes[out] - 0.5 * np.diag(parts[out])
        for place, damping in enumerate(dampings):
            step = -np.array(damped(rises, fisher.tolist(), kinds, damping))
            found[place, out] = held @ step, step @ parts[out] @ step
    means = np.einsum("f,dfx->dx", sizes, found)
    errors = found[:, :, 0].std(axis=1, ddof=1) / np.sqrt(count)
    return tuple(
        Confirmed(_rounded(slope), _rounded(error), _rounded(bend))
        for (slope, bend), error in zip(means, errors, strict=True)
    )


def _rounded(x: float) -> float:
    return float(f"{x:.{DIGITS}g}")
