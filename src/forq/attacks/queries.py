"""The engine: one queue of images to score for all attacks, an exact account of queries, and the verdict.

An image goes through three stages: ``clean`` (its first query: is it classified rightly, and with what loss?),
``search`` (what its method asks for, until a query wins or the budget ends) and ``check`` (the winning image, written
as PNG and read again, is scored once more; only that decides). One call of the victim serves many images: as soon as
one ends, the next takes its place in the batch. No image's result depends on who shares its batches.

Every evaluation of a query counts, the first included. What a method asks for at once is scored whole, also where its
first image wins, so that no account depends on the size of the batches either. The checks are counted apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forq.attacks import criterion as _criterion
from forq.attacks.ball import Ball, Distance, Image, Norm
from forq.attacks.task import Draws, Method, Points, Search, Task
from forq.attacks.victim import Victim
from forq.errors import DataError, RunError


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every image of a run.

    Attributes:
        eps: radius of the ball in levels.
        budget: queries of one image, ≥ 1.
        batch: images scored by one call, ≥ 1.
    """

    norm: Norm
    eps: float
    budget: int
    loss: _criterion.Loss
    seed: int
    batch: int


@dataclass(frozen=True, slots=True)
class Job:
    """An image to attack.

    Attributes:
        index: its place in the data.
        targeted: one class is to be reached, else any but the label will do.
        target: that class; ``None``: one is drawn.
    """

    index: int
    image: Image
    label: int
    targeted: bool = False
    target: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an image.

    Attributes:
        correct: the victim classified the original rightly; others are not attacked and count nowhere.
        found: a query won.
        success: so did the image after PNG, scored again.
        queries: evaluations spent, the first included, the check not.
        margin: score of the label minus the best other (targeted: best other minus the target) of the returned image;
            ``None``: not on record, in rows that were written before ``lowest_margin`` had a name of its own.
        lowest_margin: the lowest that any query of the image gave.
        answer: the class the victim gives the returned image.
        image: the adversarial image; the original where there is none.
    """

    index: int
    label: int
    target: int | None
    correct: bool
    found: bool
    success: bool
    queries: int
    margin: float | None
    lowest_margin: float
    answer: int
    distance: Distance
    image: Image = field(repr=False)


@dataclass(slots=True)
class _Run:
    """An image under way."""

    job: Job
    ball: Ball
    stage: Literal["clean", "search", "check"] = "clean"
    target: int | None = None
    search: Search | None = None
    points: Points = ()
    losses: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    open: int = 0
    queries: int = 0
    margin: float = np.inf  # of the original
    lowest: float = np.inf
    answer: int = -1  # to the original
    won: int | None = None


class Queue:
    """Attacks many images through one victim.

    Attributes:
        queries, checks: evaluations so far, also of images that are not done.
        calls: calls of the victim.
    """

    def __init__(self, victim: Victim, method: Method, rules: Rules, written: Callable[[int, Image], Image]) -> None:
        """``written(index, image)`` stores an image as PNG and returns what is read back."""
        self._victim, self._method, self._rules, self._written = victim, method, rules, written
        self._waiting: deque[tuple[_Run, int]] = deque()
        self.queries = self.checks = self.calls = 0

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Attack; yields outcomes as they become known.

        Raises:
            RunError: the victim fails.
            DataError: a label is none of the victim's classes.
        """
        source = iter(jobs)
        more = True
        while more or self._waiting:
            while more and len(self._waiting) < self._rules.batch:
                job = next(source, None)
                if job is None:
                    more = False
                    break
                run = _Run(job, Ball.around(job.image, self._rules.norm, self._rules.eps))
                self._ask(run, [job.image])
            size = min(self._rules.batch, len(self._waiting))
            if size:
                yield from self._score([self._waiting.popleft() for _ in range(size)])

    def _ask(self, run: _Run, points: Points) -> None:
        run.points, run.open, run.losses = points, len(points), np.empty(len(points))
        self._waiting.extend((run, place) for place in range(len(points)))

    def _score(self, batch: list[tuple[_Run, int]]) -> Iterator[Outcome]:
        checks = sum(run.stage == "check" for run, _ in batch)
        self.checks += checks
        self.queries += len(batch) - checks
        self.calls += 1
        for run, _ in batch:
            run.queries += run.stage != "check"
        scores = self._victim([run.points[place] for run, place in batch])
        self._check_labels([run.job for run, _ in batch], scores.shape[1])
        aims = [run.target for run, _ in batch]  # known once an image has been seen to be classified rightly
        targeted = np.array([aim is not None for aim in aims])
        classes = np.array([run.job.label if run.target is None else run.target for run, _ in batch])
        won = _criterion.won(scores, classes, targeted)
        losses = _criterion.losses(scores, classes, targeted, self._rules.loss)
        margins = np.where(targeted, -1.0, 1.0) * _criterion.margins(scores, classes)
        answers = scores.argmax(axis=1)
        for i, (run, place) in enumerate(batch):
            run.losses[place] = losses[i]
            run.open -= 1
            outcome = self._advance(run, place, bool(won[i]), float(margins[i]), int(answers[i]), scores[i])
            if outcome is not None:
                yield outcome

    def _advance(
        self, run: _Run, place: int, won: bool, margin: float, answer: int, scores: NDArray[np.float64]
    ) -> Outcome | None:
        """Take note of one scored image; the outcome, where that was the last."""
        if run.stage == "check":
            if not won:  # what is returned is the original
                answer, margin = run.answer, run.margin
            return self._outcome(run, correct=True, success=won, answer=answer, margin=margin)
        if run.stage == "clean":
            run.answer, run.margin, run.lowest = answer, margin, margin
            if margin <= 0:  # a tie is no right answer either
                return self._outcome(run, correct=False, success=False, answer=answer, margin=margin)
            if run.job.targeted:
                self._aim(run, scores)
            return self._start(run)
        run.lowest = min(run.lowest, margin)
        if won and (run.won is None or place < run.won):
            run.won = place
        if run.open:
            return None
        if run.won is not None:
            run.stage = "check"
            self._close(run)
            self._ask(run, [self._written(run.job.index, self._whole(run, run.points[run.won]))])
            return None
        return self._go_on(run, lambda search: search.send(run.losses))

    def _aim(self, run: _Run, scores: NDArray[np.float64]) -> None:
        """Give an image its target, and what its first query says of it."""
        job = run.job
        run.target = job.target
        if job.target is None:
            (other,) = Draws.of(self._rules.seed, job.image, job.label).below([len(scores) - 1], 0)
            run.target = other + (other >= job.label)
        aim, yes = np.array([run.target]), np.array([True])
        run.margin = run.lowest = -float(_criterion.margins(scores[None], aim)[0])
        run.losses[0] = _criterion.losses(scores[None], aim, yes, self._rules.loss)[0]

    def _start(self, run: _Run) -> Outcome | None:
        job, rules = run.job, self._rules
        draws = Draws.of(rules.seed, job.image, job.label if run.target is None else run.target)
        loss = float(run.losses[0])
        run.search = self._method.search(Task(run.ball, draws, loss, rules.budget, self._victim.floats))
        run.stage = "search"
        return self._go_on(run, next)

    def _go_on(self, run: _Run, ask: Callable[[Search], Points]) -> Outcome | None:
        assert run.search is not None
        points = None if run.queries >= self._rules.budget else _next(run.search, ask)
        if points is None or run.queries + len(points) > self._rules.budget:
            self._close(run)
            return self._outcome(run, correct=True, success=False, answer=run.answer, margin=run.margin)
        self._ask(run, points)
        return None

    def _close(self, run: _Run) -> None:
        if run.search is not None:
            run.search.close()

    def _whole(self, run: _Run, won: NDArray[Any]) -> Image:
        """The winning image in whole levels, held to the ball."""
        k = np.rint(won).astype(np.int16) - run.job.image
        if won.dtype != np.uint8:  # a method with a float state: rounding is its own risk, leaving the ball is not
            k = run.ball.project(k)
        if not run.ball.holds(k):
            raise RunError(
                f"image {run.job.index}: the method asked for an image outside the ball: a defect of the method"
            )
        return run.ball.image(k)

    def _outcome(self, run: _Run, *, correct: bool, success: bool, answer: int, margin: float) -> Outcome:
        job = run.job
        image = run.points[0].astype(np.uint8) if run.stage == "check" and success else job.image
        return Outcome(
            job.index,
            job.label,
            run.target,
            correct,
            run.won is not None,
            success,
            run.queries,
            margin,
            run.lowest,
            answer,
            Distance.between(image, job.image),
            image,
        )

    def _check_labels(self, jobs: list[Job], classes: int) -> None:
        for job in jobs:
            for name, value in (("label", job.label), ("target", job.target)):
                if value is not None and not 0 <= value < classes:
                    raise DataError(
                        f"image {job.index}: its {name} is {value}, the victim has classes 0 … {classes - 1}"
                    )


def _next(search: Search, ask: Callable[[Search], Points]) -> Points | None:
    """What a search asks for next; ``None`` where it has ended."""
    try:
        return ask(search)
    except StopIteration:
        return None
