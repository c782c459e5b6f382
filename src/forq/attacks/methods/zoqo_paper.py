"""ZOQO as published: a uniform grid direction, two queries, and a step of whole levels.

Source: arXiv 2501.06736, with one direction per step. The paper does not state three points; our
reading is: the direction is uniform, it covers every pixel, and an element that drew 0 does not
move. This is slow on thousands of pixels; see ``zoqo``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forq.attacks.task import Search, SearchTask
from forq.errors import ConfigError
from forq.noise.law import law


@dataclass(frozen=True, slots=True)
class Method:
    """``k ← P(k − n·sgn(L(k+u) − L(k−u))·sgn(u))``, u uniform on {−m, …, m}, P: project onto the ball.

    Attributes:
        radius: probe radius m in levels, ≥ 1.
        step: step size n in levels, ≥ 1.
    """

    radius: int = 4
    step: int = 1

    def __post_init__(self) -> None:
        if self.radius < 1 or self.step < 1:
            raise ConfigError(f"radius and step: expected at least 1, found {self.radius} and {self.step}")

    def search(self, task: SearchTask) -> Search:
        """Two queries per step, both inside the ball; equal losses cause no step."""
        ball, grid = task.ball, law(f"uniform_grid:{self.radius}")
        k, step = np.zeros(ball.x.shape, np.int16), 0
        noise = np.empty(ball.x.size, np.float32)
        while True:
            grid.draw(task.noise.bits(step), 0, noise)
            u = noise.astype(np.int16).reshape(k.shape)
            up, down = yield [ball.image(ball.project(k + u)), ball.image(ball.project(k - u))]
            if up != down:
                k = ball.project(k - np.int16(self.step if up > down else -self.step) * np.sign(u))
            step += 1
