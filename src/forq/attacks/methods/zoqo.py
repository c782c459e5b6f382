"""ZOQO made to work on images: tiles that shrink, moves that cross the ball, and the best point kept.

The law is the paper's (arXiv 2501.06736): probe k ± u on the lattice, compare the two losses, step whole cells by the
sign of the difference. Three settings differ from its text (``zoqo-paper`` keeps it literally):

- u is constant on the tiles of a shifted grid and zero on most of them: on single pixels the response of a network is
  lost among three thousand others;
- u is as large as the ball is wide, so that a step ends on its border: the largest losses lie there, and with m = n the
  step lands exactly on the better of the two points already paid for;
- ``greedy``: the step is taken only if that point beats the best one so far.

Only comparisons of losses are used: any increasing function of the loss gives the same images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from forq.attacks.ball import Ball, Levels
from forq.attacks.task import Search, Task
from forq.errors import ConfigError

_LENGTH = 0.5  # of a probe in L2, in radii
_STRIPES = 1 << 24  # a stream of its own for the first probe


@dataclass(frozen=True, slots=True)
class Method:
    """``k± = P(k ± m·t)``, t ∈ {−1, 0, 1} constant on tiles; k ← the better one, if it is better than k.

    Attributes:
        share: part of the tiles that a probe moves at the start, 0 < share ≤ 1; halved as tiles shrink.
        tile: side of a tile at the start, as a part of the image's height.
        greedy: keep k unless a probe is better; else always step to the better of the two.
    """

    share: float = 0.1
    tile: float = 0.25
    greedy: bool = True

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and 0 < self.tile <= 1):
            raise ConfigError(f"share and tile must lie in 0 … 1, found {self.share} and {self.tile}")

    def search(self, task: Task) -> Search:
        """Two queries a step; the first step is one of vertical stripes."""
        ball, k, best, spent = task.ball, np.zeros(task.ball.x.shape, np.int16), task.loss, 1
        _, width, channels = task.ball.x.shape
        t = np.broadcast_to(task.draws.signs(0, width * channels, _STRIPES).reshape(1, width, channels), k.shape)
        step = 0
        while True:
            u = _reach(ball, t) * t
            up, down = ball.project(k + u), ball.project(k - u)
            losses = yield [ball.image(up), ball.image(down)]
            spent += 2
            better = int(losses[1] < losses[0])
            if losses[better] < best or not (self.greedy or losses[0] == losses[1]):
                k, best = (up, down)[better], float(losses[better])
            step += 1
            t = self._tiles(task, step, spent / task.budget)

    def _tiles(self, task: Task, step: int, progress: float) -> Levels:
        """t of a step: signs on the tiles of a grid at a random shift, zero on the others."""
        height, width, channels = task.ball.x.shape
        halved = sum(progress > at for at in (0.02, 0.1, 0.3, 0.6))
        side = max(round(self.tile * height) >> halved, 1)
        share = self.share / 2**halved
        rows, columns = height // side + 2, width // side + 2
        dy, dx, one = task.draws.below([side, side, rows * columns], step)
        chosen = task.draws.bits(step, 2).uniform32(0, rows * columns) < np.uint32(share * (2**32 - 1))
        chosen[one] = True
        signs = task.draws.signs(step, rows * columns * channels).reshape(rows * columns, channels)
        t = (signs * chosen[:, None]).reshape(rows, columns, channels)
        spread: Levels = t[(np.arange(height) + dy) // side][:, (np.arange(width) + dx) // side]
        return spread


def _reach(ball: Ball, t: Levels) -> np.int16:
    """m: L∞, the width of the ball; L2, so many levels that the probe is half a radius long, and one at least."""
    if ball.norm == "linf":
        return np.int16(2 * ball.eps)
    return np.int16(min(max(round(_LENGTH * ball.eps / math.sqrt(max(int(np.count_nonzero(t)), 1))), 1), 255))
