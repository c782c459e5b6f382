"""ZOQO adapted to images: shrinking tiles, steps across the whole ball, and the best point kept.

The rule is that of the paper (arXiv 2501.06736): probe k ± u on the pixel lattice, compare the two
losses, and step by whole levels along the sign of the difference. Three settings differ from the
paper (``zoqo-paper`` follows it literally):

- u is constant on the tiles of a randomly shifted grid, and zero on most tiles. The response of a
  network to a single pixel is lost among three thousand others.
- u is as large as the ball is wide, so a step ends on the border of the ball, where the losses are
  most extreme. With m = n, the step lands on the better of the two points already queried.
- ``greedy``: a step is taken only if its point is better than the best so far.

Losses are only compared, so any increasing function of the loss gives the same images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from forq.attacks.ball import Ball, Levels
from forq.attacks.task import Search, SearchTask
from forq.errors import ConfigError

_LENGTH = 0.5  # length of an L2 probe, as a share of the radius
_STRIPES = 1 << 24  # noise stream of the first probe


@dataclass(frozen=True, slots=True)
class Method:
    """``k± = P(k ± m·t)``, t ∈ {−1, 0, 1} constant on tiles; k ← the better one, if better than k.

    Attributes:
        share: initial share of the tiles that a probe moves, 0 < share ≤ 1; halved as tiles shrink.
        tile: initial side of a tile, as a share of the image height.
        greedy: keep k unless a probe is better; otherwise always step to the better probe.
    """

    share: float = 0.1
    tile: float = 0.25
    greedy: bool = True

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and 0 < self.tile <= 1):
            raise ConfigError(f"share and tile: expected numbers in 0 … 1, found {self.share} and {self.tile}")

    def search(self, task: SearchTask) -> Search:
        """Two queries per step; the first step probes vertical stripes."""
        ball, k, best, spent = task.ball, np.zeros(task.ball.x.shape, np.int16), task.loss, 1
        _, width, channels = task.ball.x.shape
        t = np.broadcast_to(task.noise.signs(0, width * channels, _STRIPES).reshape(1, width, channels), k.shape)
        step = 0
        while True:
            u = _size(ball, t) * t
            up, down = ball.project(k + u), ball.project(k - u)
            losses = yield [ball.image(up), ball.image(down)]
            spent += 2
            better = int(losses[1] < losses[0])
            if losses[better] < best or not (self.greedy or losses[0] == losses[1]):
                k, best = (up, down)[better], float(losses[better])
            step += 1
            t = self._tiles(task, step, spent / task.budget)

    def _tiles(self, task: SearchTask, step: int, progress: float) -> Levels:
        """The direction t of a step: random signs on some tiles of a randomly shifted grid, zero elsewhere."""
        height, width, channels = task.ball.x.shape
        halved = sum(progress > halving for halving in (0.02, 0.1, 0.3, 0.6))
        side = max(round(self.tile * height) >> halved, 1)
        share = self.share / 2**halved
        rows, columns = height // side + 2, width // side + 2
        dy, dx, always = task.noise.below([side, side, rows * columns], step)
        chosen = task.noise.bits(step, 2).uniform32(0, rows * columns) < np.uint32(share * (2**32 - 1))
        chosen[always] = True
        signs = task.noise.signs(step, rows * columns * channels).reshape(rows * columns, channels)
        tiles = (signs * chosen[:, None]).reshape(rows, columns, channels)
        t: Levels = tiles[(np.arange(height) + dy) // side][:, (np.arange(width) + dx) // side]
        return t


def _size(ball: Ball, t: Levels) -> np.int16:
    """Probe size m in levels. L∞: the width of the ball; L2: a probe half a radius long, at least one level."""
    if ball.norm == "linf":
        return np.int16(2 * ball.eps)
    return np.int16(min(max(round(_LENGTH * ball.eps / math.sqrt(max(int(np.count_nonzero(t)), 1))), 1), 255))
