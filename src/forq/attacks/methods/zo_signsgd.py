"""ZO-SignSGD with a float state: what rounding to pixels costs a method that does not know of them.

Source: Liu et al., *signSGD via zeroth-order oracle*, ICLR 2019: ``x ← P(x − η·sgn(ĝ))``, ĝ the mean of q two-point
estimates along Gaussian directions. The state is float; what is scored is a whole image (``rounding = queries``), so a
probe or a step of less than half a level may be rounded to nothing. With a victim that takes floats, ``rounding =
end`` scores the float image instead and rounds only the winner, as common practice does: images that were won and are
lost by that rounding are those with ``found`` but no ``success``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forq.attacks.ball import Ball
from forq.attacks.task import Search, Task
from forq.errors import ConfigError
from forq.noise.law import law


@dataclass(frozen=True, slots=True)
class Method:
    """``v ← P(v − η·sgn(Σ_j [L(v + μz_j) − L(v − μz_j)] z_j))``, in levels.

    Attributes:
        radius: μ, levels for each unit of z, > 0.
        step: η, levels, > 0.
        directions: q, ≥ 1; 2q queries a step.
        rounding: ``queries``: whole levels in every query; ``end``: floats in queries, the winner rounded.
    """

    radius: float = 2.0
    step: float = 1.0
    directions: int = 10
    rounding: Literal["queries", "end"] = "queries"

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.step <= 0 or self.directions < 1:
            raise ConfigError("radius and step must be positive, directions at least 1")

    def search(self, task: Task) -> Search:
        """2q queries a step."""
        if self.rounding == "end" and not task.floats:
            raise ConfigError("rounding=end scores float images: the victim must take them (--input float)")
        ball, normal = task.ball, law("gaussian")
        v, step = np.zeros(ball.x.shape, np.float32), 0
        z = np.empty((self.directions, ball.x.size), np.float32)
        while True:
            for j in range(self.directions):
                normal.draw(task.draws.bits(step, j), 0, z[j])
            along = z.reshape(self.directions, *v.shape)
            points = [self._point(ball, v + side * self.radius * one) for one in along for side in (1, -1)]
            losses = yield points
            slopes = (losses[0::2] - losses[1::2]).astype(np.float32)
            v = _held(ball, v - np.float32(self.step) * np.sign(slopes @ z).reshape(v.shape))
            step += 1

    def _point(self, ball: Ball, v: NDArray[np.float32]) -> NDArray[Any]:
        return (
            ball.image(ball.project(v)) if self.rounding == "queries" else (ball.x + _held(ball, v)).astype(np.float32)
        )


def _held(ball: Ball, v: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest float displacement in the ball."""
    box = np.clip(v, ball.low, ball.high)
    length = float(np.linalg.norm(box))
    if ball.norm == "linf" or length <= ball.eps:
        return box
    held: NDArray[np.float32] = (box * np.float32(ball.eps / length)).astype(np.float32)
    return held
