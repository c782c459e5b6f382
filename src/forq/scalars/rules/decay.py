"""Steps that shrink towards the end of a run, where the noise of the estimate exceeds the gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace

from forq.scalars.chain import Inputs, NoSettings, Registration
from forq.scalars.course import Course
from forq.scalars.protocols import Estimate, State


@dataclass(frozen=True, slots=True)
class Decay:
    """``ĝ ← s(t)·ĝ`` with s falling from 1 to 0 over the run, as its course says."""

    course: Course

    def init(self) -> State:
        return {}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        return replace(estimate, move=estimate.move.scaled(self.course.share(step))), state


def make(settings: NoSettings, inputs: Inputs) -> Decay | None:
    """The rule, where steps shrink and have a length.

    Of whole cells, the number of coordinates they move shrinks instead; see
    :class:`forq.scalars.directions.Directions`.
    """
    fixed = inputs.course.shape == "none" or inputs.step == "vote" or inputs.whole_cells
    return None if fixed else Decay(inputs.course)


registration = Registration(order=50, settings=NoSettings, make=make)


def example() -> Decay:
    """An instance for the contract tests."""
    return Decay(Course(first=0, steps=4, shape="linear"))
