"""ZOQO as published: a uniform direction on the grid, two queries, whole cells by the sign of their difference.

Source: arXiv 2501.06736, with one direction a step. That the direction is drawn uniformly, that it covers every pixel,
and that an element which drew 0 stays are readings of ours. On thousands of pixels this is slow: see ``zoqo``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forq.attacks.task import Search, Task
from forq.errors import ConfigError
from forq.noise.law import law


@dataclass(frozen=True, slots=True)
class Method:
    """``k ← P(k − n·sgn(L(k+u) − L(k−u))·sgn(u))``, u uniform on {−m, …, m}, P onto the ball.

    Attributes:
        radius: m, levels a probe reaches, ≥ 1.
        step: n, levels of a step, ≥ 1.
    """

    radius: int = 4
    step: int = 1

    def __post_init__(self) -> None:
        if self.radius < 1 or self.step < 1:
            raise ConfigError(f"radius and step must be at least 1, found {self.radius} and {self.step}")

    def search(self, task: Task) -> Search:
        """Two queries a step, both inside the ball; equal losses move nothing."""
        ball, grid = task.ball, law(f"uniform_grid:{self.radius}")
        k, step = np.zeros(ball.x.shape, np.int16), 0
        drawn = np.empty(ball.x.size, np.float32)
        while True:
            grid.draw(task.draws.bits(step), 0, drawn)
            u = drawn.astype(np.int16).reshape(k.shape)
            up, down = yield [ball.image(ball.project(k + u)), ball.image(ball.project(k - u))]
            if up != down:
                k = ball.project(k - np.int16(self.step if up > down else -self.step) * np.sign(u))
            step += 1
