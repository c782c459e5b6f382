"""What one probe measured: a loss, and where an oracle records them, the losses of the batch's rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from forq.errors import RunError


class Confirmed(NamedTuple):
    """What held-out rows say of the step that the other rows ask for, a mean over the parts of a batch.

    Attributes:
        slope: of the loss along the step; below 0 where they confirm it.
        error: standard error of the slope, from the parts.
        bend: curvature along the step.
    """

    slope: float
    error: float
    bend: float


class Own(NamedTuple):
    """What a probe by row (:attr:`forq.scalars.moves.Move.by_row`) says of each row's own direction.

    Attributes:
        rises: first derivative of each row's loss along its direction, in loss per probe.
        bend: curvature of a row's loss along its direction, the mean over the rows.
    """

    rises: tuple[float, ...]
    bend: float


@dataclass(frozen=True, slots=True)
class Losses:
    """The answer of an oracle to one probe.

    Attributes:
        mean: the training objective over the batch; may be NaN or infinite.
        each: what every row of the batch contributes, in the batch's order: their mean is ``mean``, up to rounding.
            ``None`` where only the mean was kept.
        forwards: forward passes this probe took; 0 where the pass of another probe measured it too.
        fisher: where an oracle measures curvature, this probe's products with every probe before it except the first,
            and with itself: the mean over the batch of products of what each changes in the model's predictions. The
            first probe is the point itself, and its row is empty. See :mod:`forq.scalars.quadratic`.
        confirmed: of a step's first probe, where ``fisher`` is measured: how far the batch agrees with itself on the
            step, for each damping of :func:`forq.scalars.quadratic.tried`.
        own: of a probe by row, where curvature is measured; ``fisher`` does not count such probes.
    """

    mean: float
    each: tuple[float, ...] | None = None
    forwards: int = 1
    fisher: tuple[float, ...] | None = None
    confirmed: tuple[Confirmed, ...] | None = None
    own: Own | None = None


def from_means(means: Iterable[float]) -> tuple[Losses, ...]:
    """Losses without rows, one for each number."""
    return tuple(Losses(mean) for mean in means)


def means(losses: Iterable[Losses]) -> tuple[float, ...]:
    """The mean of every probe, which is all that most estimators use."""
    return tuple(answer.mean for answer in losses)


def rows(losses: Sequence[Losses]) -> tuple[tuple[float, ...], ...]:
    """The rows' losses of every probe, for an estimator whose ``needs_rows`` is true.

    Raises:
        RunError: an answer has no rows, or the probes of a step have different numbers of them.
    """
    found = tuple(answer.each for answer in losses if answer.each is not None)
    if len(found) < len(losses) or len({len(each) for each in found}) > 1:
        raise RunError(
            "this estimator compares rows: expected the same number of row losses for every probe, found "
            f"{[None if answer.each is None else len(answer.each) for answer in losses]}; give an oracle that "
            "answers forq.scalars.losses.Losses with each"
        )
    return found
