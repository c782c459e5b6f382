"""Square Attack: random search with squares of full strength, the baseline every black-box attack is held to.

Source: Andriushchenko, Croce, Flammarion and Hein, *Square Attack*, ECCV 2020 (arXiv 1912.00049), from its text:
algorithms 1–3. L∞: start from vertical stripes ±ε; set one window to ±ε, one sign a channel; keep what lowers the loss.
L2: start from a checkered grid of η bumps; move the length of one window to another, adding a bump there. Here every
point is a whole displacement (the L2 steps are rounded and shrunk onto the ball), and a window that changes nothing is
drawn again without a query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from forq.attacks.ball import Ball, Levels
from forq.attacks.task import Draws, Search, Task
from forq.errors import ConfigError

_HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)
_OF = 10_000
_REDRAWS = 20
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Method:
    """``x̂ ← P(x̂ + δ)`` if that lowers the loss, δ a random square.

    Attributes:
        share: p, part of the pixels a square covers at the start, 0 < p ≤ 1; halved after 10, 50, 200, 1000, 2000,
            4000, 6000 and 8000 of 10,000 queries, and at the same parts of another budget. The paper's 0.05 is for
            ImageNet; on CIFAR-10 (other images than those reported) 0.1 and 0.2 were better, see LOG.md.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share must lie in 0 … 1, found {self.share}")

    def search(self, task: Task) -> Search:
        """One query a step."""
        linf = task.ball.norm == "linf"
        k = _stripes(task) if linf else _bumps(task)
        losses = yield [task.ball.image(k)]
        best, spent = float(losses[0]), 2
        steps: Iterator[int] = iter(range(1, 1 << 40))
        while True:
            share = self.share / 2 ** sum(spent - 2 > at * task.budget / _OF for at in _HALVINGS)
            for _ in range(_REDRAWS):
                step = next(steps)
                new = (
                    _window(task.ball, k, task.draws, step, share)
                    if linf
                    else _shift(task.ball, k, task.draws, step, share)
                )
                if not np.array_equal(new, k):
                    break
            (loss,) = yield [task.ball.image(new)]
            spent += 1
            if loss < best:
                k, best = new, float(loss)


def _stripes(task: Task) -> Levels:
    """Every column and channel at −ε or +ε."""
    _, width, channels = task.ball.x.shape
    signs = task.draws.signs(0, width * channels).reshape(1, width, channels)
    return task.ball.project(np.broadcast_to(signs * np.int16(task.ball.eps), task.ball.x.shape))


def _window(ball: Ball, k: Levels, draws: Draws, step: int, share: float) -> Levels:
    """One square at ±2ε from where it is, so at the border of the ball; one sign a channel."""
    height, width, channels = k.shape
    side = min(max(round(math.sqrt(share * height * width)), 1), height, width)
    top, left, signs = draws.below([height - side + 1, width - side + 1, 1 << channels], step)
    new = k.copy()
    cut = np.s_[top : top + side, left : left + side]
    sign = np.array([1 if signs >> channel & 1 else -1 for channel in range(channels)], np.int16)
    reach = np.int16(2 * ball.eps)
    new[cut] = np.clip(k[cut] + reach * sign, ball.low[cut], ball.high[cut])
    return new


@cache
def _bump(height: int, width: int) -> Float64:
    """η: nested rectangles, each ring adding 1/(n + 1 − ring)², largest in the middle; of length 1."""
    n = height // 2
    bump = np.zeros((height, width)) if n and width > 1 else np.ones((height, width))
    for ring in range(n):
        across = ring * width // (2 * n)
        bump[ring : height - ring, across : width - across] += 1.0 / (n - ring) ** 2
    bump /= np.linalg.norm(bump)
    bump.flags.writeable = False
    return bump


@cache
def _pair(side: int) -> Float64:
    """Two bumps of opposite sign beside each other, of length 1."""
    if side < 2:
        return np.ones((side, side))
    half = side // 2
    pair = np.concatenate([_bump(side, half), -_bump(side, side - half)], axis=1)
    pair /= np.linalg.norm(pair)
    pair.flags.writeable = False
    return pair


def _bumps(task: Task) -> Levels:
    """A grid of five by five bumps of random signs, as long as the ball allows."""
    height, width, channels = task.ball.x.shape
    side = max(min(height, width) // 5, 1)
    k = np.zeros(task.ball.x.shape)
    rows, columns = range(0, height - side + 1, side), range(0, width - side + 1, side)
    signs = task.draws.signs(0, len(rows) * len(columns) * channels).reshape(len(rows), len(columns), channels)
    bump = _bump(side, side)
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            k[top : top + side, left : left + side] = bump[:, :, None] * signs[i, j]
    return task.ball.project(k * (task.ball.eps / np.linalg.norm(k)))


def _shift(ball: Ball, k: Levels, draws: Draws, step: int, share: float) -> Levels:
    """Move the length of one window into another, and what of ε was unused; a pair of bumps bends it there."""
    height, width, channels = k.shape
    side = max(round(math.sqrt(share * height * width)), 3) | 1
    side = min(side, (min(height, width) - 1) | 1)
    spots = [height - side + 1, width - side + 1]
    top, left, top2, left2, turned, signs = draws.below([*spots, *spots, 2, 1 << channels], step)
    here, there = np.s_[top : top + side, left : left + side], np.s_[top2 : top2 + side, left2 : left2 + side]
    sign = np.array([1.0 if signs >> channel & 1 else -1.0 for channel in range(channels)])
    new = k.astype(np.float64)
    both = np.zeros(k.shape[:2], bool)
    both[here] = both[there] = True
    unused = max(ball.eps**2 - float(np.square(new).sum()), 0.0)
    kept = np.sqrt(np.square(new[both]).sum(axis=0) + unused / channels)
    window = new[here]
    length = np.linalg.norm(window, axis=(0, 1))
    pair = _pair(side).T if turned else _pair(side)
    bent = pair[:, :, None] * sign + window / np.where(length > 0, length, 1.0)
    new[there] = 0.0
    new[here] = bent * (kept / np.maximum(np.linalg.norm(bent, axis=(0, 1)), 1e-12))
    return ball.project(new)
