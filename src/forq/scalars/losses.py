"""What one probe measured: a loss, and where an oracle records them, the losses of the batch's rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forq.errors import RunError


@dataclass(frozen=True, slots=True)
class Losses:
    """The answer of an oracle to one probe.

    Attributes:
        mean: the training objective over the batch; may be NaN or infinite.
        each: what every row of the batch contributes, in the batch's order: their mean is ``mean``, up to rounding.
            ``None`` where only the mean was kept.
        forwards: forward passes this probe took; 0 where the pass of another probe measured it too.
    """

    mean: float
    each: tuple[float, ...] | None = None
    forwards: int = 1


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
