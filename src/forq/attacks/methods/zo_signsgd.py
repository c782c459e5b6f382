"""ZO-SignSGD with a float state; shows what rounding to levels costs a method that ignores it.

Source: Liu et al., *signSGD via zeroth-order oracle*, ICLR 2019: ``x ← P(x − η·sgn(ĝ))``, where ĝ
is the mean of q two-point estimates along Gaussian directions. With ``rounding = queries``, each
query is rounded to whole levels, so a probe or step below half a level may have no effect. With
``rounding = end``, the victim scores float images and only the winner is rounded, as is common
practice. Images lost by this rounding have ``found`` but not ``success``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forq.attacks.ball import Ball
from forq.attacks.task import Search, SearchTask
from forq.errors import ConfigError
from forq.noise.law import law


@dataclass(frozen=True, slots=True)
class Method:
    """``v ← P(v − η·sgn(Σ_j [L(v + μz_j) − L(v − μz_j)] z_j))``, in levels.

    Attributes:
        radius: probe radius μ, in levels per unit of z, > 0.
        step: step size η in levels, > 0.
        directions: number of directions q, ≥ 1; a step takes 2q queries.
        rounding: ``queries``: round each query to whole levels; ``end``: round only the winner.
    """

    radius: float = 2.0
    step: float = 1.0
    directions: int = 10
    rounding: Literal["queries", "end"] = "queries"

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.step <= 0 or self.directions < 1:
            raise ConfigError(
                "expected radius and step above 0 and at least 1 direction, found "
                f"{self.radius}, {self.step} and {self.directions}"
            )

    def search(self, task: SearchTask) -> Search:
        """2q queries per step."""
        if self.rounding == "end" and not task.floats:
            raise ConfigError("rounding=end: expected a victim that takes floats, found uint8; add --input float")
        ball, normal = task.ball, law("gaussian")
        v, step = np.zeros(ball.x.shape, np.float32), 0
        z = np.empty((self.directions, ball.x.size), np.float32)
        while True:
            for j in range(self.directions):
                normal.draw(task.noise.bits(step, j), 0, z[j])
            directions = z.reshape(self.directions, *v.shape)
            losses = yield [
                self._point(ball, v + sign * self.radius * direction) for direction in directions for sign in (1, -1)
            ]
            slopes = (losses[0::2] - losses[1::2]).astype(np.float32)
            v = _project(ball, v - np.float32(self.step) * np.sign(slopes @ z).reshape(v.shape))
            step += 1

    def _point(self, ball: Ball, v: NDArray[np.float32]) -> NDArray[Any]:
        if self.rounding == "queries":
            return ball.image(ball.project(v))
        return (ball.x + _project(ball, v)).astype(np.float32)


def _project(ball: Ball, v: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest float displacement in the ball."""
    clipped = np.clip(v, ball.low, ball.high)
    length = float(np.linalg.norm(clipped))
    if ball.norm == "linf" or length <= ball.eps:
        return clipped
    scaled: NDArray[np.float32] = (clipped * np.float32(ball.eps / length)).astype(np.float32)
    return scaled
