"""The engine: one queue of images to score for all attacks, exact query counts, and the verdict.

An image passes three stages:

- ``clean``: the first query scores the original and tells whether it is classified correctly;
- ``search``: the method's images are scored until one wins or the budget is spent;
- ``check``: the winning image is written as PNG, read again and scored once more. This score
  decides about success.

A batch mixes images: when an image is finished, the next takes its place. The result of an image
does not depend on the other images in its batches.

Every evaluation counts as a query, the first included. The images that a method yields together
are all scored, even if the first of them wins, so the counts do not depend on the batch size.
The checks are counted separately.
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
from forq.attacks.task import ImageNoise, Method, Points, Search, SearchTask
from forq.attacks.victim import Victim
from forq.errors import DataError, RunError


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that apply to all images of a run.

    Attributes:
        eps: radius of the ball in levels.
        budget: maximum number of queries per image, ≥ 1.
        batch: number of images scored by one call, ≥ 1.
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
        index: position in the data.
        targeted: whether a certain class must be reached; otherwise any class but the label.
        target: the class to reach; ``None``: a random class.
    """

    index: int
    image: Image
    label: int
    targeted: bool = False
    target: int | None = None


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """The result of one image.

    Attributes:
        correct: whether the victim classifies the original correctly. Other images are not
            attacked, and no rate includes them.
        found: whether a query won.
        success: whether the winning image still wins after PNG, scored again.
        queries: evaluations spent, the first included, the check excluded.
        margin: margin of the returned image: score of the label minus the best other score
            (targeted: best other score minus that of the target). ``None`` in older rows, which
            recorded only the lowest margin.
        lowest_margin: the lowest margin of all queries of the image.
        answer: the class the victim predicts for the returned image.
        image: the adversarial image; the original if there is none.
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
class _Progress:
    """The state of an image that is being attacked."""

    job: Job
    ball: Ball
    stage: Literal["clean", "search", "check"] = "clean"
    target: int | None = None
    search: Search | None = None
    points: Points = ()
    losses: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    open: int = 0
    queries: int = 0
    margin: float = np.inf  # margin of the original
    lowest: float = np.inf
    answer: int = -1  # class predicted for the original
    won: int | None = None  # position of the winning point


class Queue:
    """Attacks many images through one victim.

    Attributes:
        queries, checks: evaluations so far, unfinished images included.
        calls: calls of the victim so far.
    """

    def __init__(self, victim: Victim, method: Method, rules: Rules, written: Callable[[int, Image], Image]) -> None:
        """``written(index, image)`` must store an image as PNG and return the image read back from it."""
        self._victim, self._method, self._rules, self._written = victim, method, rules, written
        self._waiting: deque[tuple[_Progress, int]] = deque()
        self.queries = self.checks = self.calls = 0

    def run(self, jobs: Iterable[Job]) -> Iterator[ImageOutcome]:
        """Attack all images and yield their outcomes in the order in which they finish.

        Raises:
            RunError: the victim failed.
            DataError: a label is not one of the victim's classes.
        """
        source = iter(jobs)
        more = True
        while more or self._waiting:
            while more and len(self._waiting) < self._rules.batch:
                job = next(source, None)
                if job is None:
                    more = False
                    break
                run = _Progress(job, Ball.around(job.image, self._rules.norm, self._rules.eps))
                self._enqueue(run, [job.image])
            size = min(self._rules.batch, len(self._waiting))
            if size:
                yield from self._score([self._waiting.popleft() for _ in range(size)])

    def _enqueue(self, run: _Progress, points: Points) -> None:
        run.points, run.open, run.losses = points, len(points), np.empty(len(points))
        self._waiting.extend((run, place) for place in range(len(points)))

    def _score(self, batch: list[tuple[_Progress, int]]) -> Iterator[ImageOutcome]:
        checks = sum(run.stage == "check" for run, _ in batch)
        self.checks += checks
        self.queries += len(batch) - checks
        self.calls += 1
        for run, _ in batch:
            run.queries += run.stage != "check"
        scores = self._victim([run.points[place] for run, place in batch])
        self._check_labels([run.job for run, _ in batch], scores.shape[1])
        targeted = np.array([run.target is not None for run, _ in batch])  # set after the clean query
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
        self, run: _Progress, place: int, won: bool, margin: float, answer: int, scores: NDArray[np.float64]
    ) -> ImageOutcome | None:
        """Record the score of one point; returns the outcome if the image is finished."""
        if run.stage == "check":
            if not won:  # then the original is returned
                answer, margin = run.answer, run.margin
            return self._outcome(run, correct=True, success=won, answer=answer, margin=margin)
        if run.stage == "clean":
            run.answer, run.margin, run.lowest = answer, margin, margin
            if margin <= 0:  # a tie is not a correct answer either
                return self._outcome(run, correct=False, success=False, answer=answer, margin=margin)
            if run.job.targeted:
                self._set_target(run, scores)
            return self._start(run)
        run.lowest = min(run.lowest, margin)
        if won and (run.won is None or place < run.won):
            run.won = place
        if run.open:
            return None
        if run.won is not None:
            run.stage = "check"
            self._close(run)
            self._enqueue(run, [self._written(run.job.index, self._to_levels(run, run.points[run.won]))])
            return None
        return self._continue(run, lambda search: search.send(run.losses))

    def _set_target(self, run: _Progress, scores: NDArray[np.float64]) -> None:
        """Choose the target of an image, and compute margin and loss of its first query for it."""
        job = run.job
        run.target = job.target
        if job.target is None:
            (other,) = ImageNoise.of(self._rules.seed, job.image, job.label).below([len(scores) - 1], 0)
            run.target = other + (other >= job.label)
        target, targeted = np.array([run.target]), np.array([True])
        run.margin = run.lowest = -float(_criterion.margins(scores[None], target)[0])
        run.losses[0] = _criterion.losses(scores[None], target, targeted, self._rules.loss)[0]

    def _start(self, run: _Progress) -> ImageOutcome | None:
        job, rules = run.job, self._rules
        noise = ImageNoise.of(rules.seed, job.image, job.label if run.target is None else run.target)
        loss = float(run.losses[0])
        run.search = self._method.search(SearchTask(run.ball, noise, loss, rules.budget, self._victim.floats))
        run.stage = "search"
        return self._continue(run, next)

    def _continue(self, run: _Progress, advance: Callable[[Search], Points]) -> ImageOutcome | None:
        """Enqueue the next points of the search; returns the outcome if the budget or the search has ended."""
        assert run.search is not None
        points = None if run.queries >= self._rules.budget else _next(run.search, advance)
        if points is None or run.queries + len(points) > self._rules.budget:
            self._close(run)
            return self._outcome(run, correct=True, success=False, answer=run.answer, margin=run.margin)
        self._enqueue(run, points)
        return None

    def _close(self, run: _Progress) -> None:
        if run.search is not None:
            run.search.close()

    def _to_levels(self, run: _Progress, point: NDArray[Any]) -> Image:
        """The winning point as an image of whole levels inside the ball."""
        k = np.rint(point).astype(np.int16) - run.job.image
        if point.dtype != np.uint8:  # float points may leave the ball by rounding; the method must still win there
            k = run.ball.project(k)
        if not run.ball.holds(k):
            raise RunError(
                f"image {run.job.index}: expected a point inside the ball, found one outside; report this defect of "
                "the method"
            )
        return run.ball.image(k)

    def _outcome(self, run: _Progress, *, correct: bool, success: bool, answer: int, margin: float) -> ImageOutcome:
        job = run.job
        image = run.points[0].astype(np.uint8) if run.stage == "check" and success else job.image
        return ImageOutcome(
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
                        f"image {job.index}: expected one of the victim's classes 0 … {classes - 1}, found "
                        f"{name} {value}; check the labels"
                    )


def _next(search: Search, advance: Callable[[Search], Points]) -> Points | None:
    """The next points of a search; ``None`` if it has ended."""
    try:
        return advance(search)
    except StopIteration:
        return None
