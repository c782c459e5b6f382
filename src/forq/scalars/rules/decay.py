"""A step that shrinks as the run ends: constant steps walk at random once the gradient is below its noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

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


def example() -> Decay:
    """An instance for the contract tests."""
    return Decay(Course(first=0, steps=4, shape="linear"))
