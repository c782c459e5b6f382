"""The images an attack may use: whole levels 0 … 255, at most ε away from the original.

A point of the ball is an integer displacement of the original. So every point is a valid image by
construction, and no rounding at the end can undo an attack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forq.errors import ConfigError

Norm = Literal["linf", "l2"]
Levels = NDArray[np.int16]
Image = NDArray[np.uint8]

NORMS: tuple[Norm, ...] = ("linf", "l2")
_BISECTIONS = 7


def check(norm: str, eps: float, size: int) -> None:
    """Check the norm and the radius.

    Raises:
        ConfigError: unknown norm, ε outside (0, largest], or a fraction of a level in L∞.
    """
    if norm not in NORMS:
        raise ConfigError(f"--norm: expected {' or '.join(NORMS)}, found {norm!r}")
    largest = 255.0 if norm == "linf" else 255.0 * math.sqrt(size)
    if not 0 < eps <= largest:
        raise ConfigError(
            f"--eps: expected more than 0 and at most {largest:g} levels of 255 ({norm}), found {eps:g}"
            + ("; 8 means 8/255" if 0 < eps < 1 or eps <= 0 else "")
        )
    if norm == "linf" and eps != int(eps):
        raise ConfigError(f"--eps: expected whole levels of 255 in linf, found {eps:g}; 8 means 8/255")
    if eps < 1:
        raise ConfigError(f"--eps: expected at least 1 level of 255, found {eps:g}: nothing smaller changes a pixel")


@dataclass(frozen=True, slots=True)
class Ball:
    """Displacements k with 0 ≤ x + k ≤ 255 and ‖k‖ ≤ ε, in L∞ or L2.

    Attributes:
        x: the original image, [H, W, C] uint8.
        low, high: smallest and largest displacement of each element, int16, [H, W, C].
        eps: radius in levels.
    """

    x: Image
    norm: Norm
    eps: float
    low: Levels
    high: Levels

    @classmethod
    def around(cls, x: Image, norm: Norm, eps: float) -> Ball:
        """The ball with radius ``eps`` around an image."""
        levels = x.astype(np.int16)
        largest = np.int16(eps if norm == "linf" else 255)
        return cls(x, norm, eps, np.maximum(-levels, -largest), np.minimum(np.int16(255) - levels, largest))

    def holds(self, k: Levels) -> bool:
        """Whether a displacement lies in the ball; exact, computed in integers."""
        inside = bool((k >= self.low).all() and (k <= self.high).all())
        return inside and (self.norm == "linf" or _square(k) <= self.eps**2)

    def project(self, k: NDArray[Any]) -> Levels:
        """An integer displacement of the ball near ``k`` (integers or floats).

        L∞: the nearest displacement, by rounding and clipping. L2: clipped, then scaled towards 0.
        Seven bisections find the factor nearest to 1 for which the *rounded* displacement fits.
        Truncation instead would waste a fifth of ε where elements are only a few levels large.
        """
        clipped = np.clip(k, self.low, self.high)
        nearest: Levels = clipped if clipped.dtype == np.int16 else np.rint(clipped).astype(np.int16)
        if self.norm == "linf" or _square(nearest) <= self.eps**2:
            return nearest
        # Truncation shortens the scaled displacement, so the truncated displacement always fits.
        factor = self.eps / math.sqrt(float(np.square(clipped, dtype=np.float64).sum())) * (1 - 1e-12)
        truncated: Levels = np.trunc(clipped * factor).astype(np.int16)
        low, high, flat = 0.8 * factor, min(1.0, 1.25 * factor), clipped.reshape(-1).astype(np.float64)
        best = None
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            rounded = np.rint(flat * middle)
            if float(rounded @ rounded) <= self.eps**2:  # sums of whole numbers below 2^53: exact
                low, best = middle, rounded
            else:
                high = middle
        return truncated if best is None else best.reshape(clipped.shape).astype(np.int16)

    def image(self, k: Levels) -> Image:
        """The image at a displacement of the ball."""
        levels: Image = (self.x + k).astype(np.uint8)
        return levels


def _square(k: NDArray[Any]) -> int:
    """‖k‖² of an integer displacement, exact."""
    flat = k.reshape(-1).astype(np.int64)
    return int(flat @ flat)


@dataclass(frozen=True, slots=True)
class Distance:
    """Distance of two images: largest change and Euclidean norm in levels, and number of changed elements."""

    linf: int
    l2: float
    l0: int

    @classmethod
    def between(cls, image: Image, other: Image) -> Distance:
        """The distance of two images with the same shape."""
        k = image.astype(np.int64) - other
        return cls(int(np.abs(k).max(initial=0)), math.sqrt(_square(k)), int(np.count_nonzero(k)))
