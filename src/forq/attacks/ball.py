"""The images an attack may use: whole levels 0 … 255, no further than ε from the original.

Points are integer displacements of the original, so that a point of the ball is a valid image by construction: no
rounding at the end can undo an attack.
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
    """Refuse a ball that is empty, or as large as all images.

    Raises:
        ConfigError: no such norm, ε not in (0, largest], or a fraction of a level in L∞.
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
    """Displacements k with 0 ≤ x + k ≤ 255 and ‖k‖ ≤ ε, elementwise (L∞) or in sum (L2).

    Attributes:
        x: the original image, [H, W, C] uint8.
        low, high: smallest and largest displacement of every element, int16, [H, W, C].
        eps: radius in levels.
    """

    x: Image
    norm: Norm
    eps: float
    low: Levels
    high: Levels

    @classmethod
    def around(cls, x: Image, norm: Norm, eps: float) -> Ball:
        """The ball of radius ``eps`` around an image."""
        levels = x.astype(np.int16)
        reach = np.int16(eps if norm == "linf" else 255)
        return cls(x, norm, eps, np.maximum(-levels, -reach), np.minimum(np.int16(255) - levels, reach))

    def holds(self, k: Levels) -> bool:
        """Whether a displacement lies in the ball; exact, in integers."""
        inside = bool((k >= self.low).all() and (k <= self.high).all())
        return inside and (self.norm == "linf" or _square(k) <= self.eps**2)

    def project(self, k: NDArray[Any]) -> Levels:
        """A whole displacement of the ball near ``k`` (integers or floats).

        L∞: rounded and clipped, the nearest one. L2: clipped, then shrunk towards 0 by the factor nearest to 1 that
        seven bisections find for which the *rounded* displacement fits; truncating instead would waste a fifth of ε
        where elements are a few levels large.
        """
        box = np.clip(k, self.low, self.high)
        near: Levels = box if box.dtype == np.int16 else np.rint(box).astype(np.int16)
        if self.norm == "linf" or _square(near) <= self.eps**2:
            return near
        # Truncated elements are no longer than scaled ones, so this one always fits.
        fits = self.eps / math.sqrt(float(np.square(box, dtype=np.float64).sum())) * (1 - 1e-12)
        truncated: Levels = np.trunc(box * fits).astype(np.int16)
        low, high, flat = 0.8 * fits, min(1.0, 1.25 * fits), box.reshape(-1).astype(np.float64)
        found = None
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            tried = np.rint(flat * middle)
            if float(tried @ tried) <= self.eps**2:  # sums of whole numbers below 2^53: exact
                low, found = middle, tried
            else:
                high = middle
        return truncated if found is None else found.reshape(box.shape).astype(np.int16)

    def image(self, k: Levels) -> Image:
        """The image at a displacement of the ball."""
        levels: Image = (self.x + k).astype(np.uint8)
        return levels


def _square(k: NDArray[Any]) -> int:
    """‖k‖² of whole numbers, exactly."""
    flat = k.reshape(-1).astype(np.int64)
    return int(flat @ flat)


@dataclass(frozen=True, slots=True)
class Distance:
    """How far an image is from another: largest change and Euclidean norm in levels, and elements that differ."""

    linf: int
    l2: float
    l0: int

    @classmethod
    def between(cls, one: Image, other: Image) -> Distance:
        """The distance of two images of one shape."""
        k = one.astype(np.int64) - other
        return cls(int(np.abs(k).max(initial=0)), math.sqrt(_square(k)), int(np.count_nonzero(k)))
