"""The task of a method: one image to attack, and the random numbers for it."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from forq.attacks.ball import Ball, Image, Levels
from forq.noise.bits import Bits, leaf_id
from forq.scalars.moves import direction_seed

Points = Sequence[NDArray[np.uint8] | NDArray[np.float32]]
"""Images to score, each [H, W, C]: uint8, or float32 levels for a victim that takes floats."""

Search = Generator[Points, NDArray[np.float64], None]
"""Yields images and receives their losses. The engine closes it on success or when the budget is spent."""


@dataclass(frozen=True, slots=True)
class ImageNoise:
    """Random numbers of one image: a pure function of (seed, image, step, stream).

    Attributes:
        seed: seed of the run.
        leaf: identity of the image, computed from its content.
    """

    seed: int
    leaf: int

    @classmethod
    def of(cls, seed: int, image: Image, classes: int) -> ImageNoise:
        """The random numbers for an image and its label (or its target)."""
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
        return cls(seed, leaf_id(f"image/{image.shape}/{digest}/{classes}"))

    def bits(self, step: int, stream: int = 0) -> Bits:
        """The bits of a step."""
        return Bits(direction_seed(self.seed, step), self.leaf, stream)

    def signs(self, step: int, count: int, stream: int = 0) -> Levels:
        """``count`` random signs, −1 or +1."""
        packed = self.bits(step, stream).bytes(0, -(-count // 8))
        return np.unpackbits(packed, count=count, bitorder="little").astype(np.int16) * np.int16(2) - np.int16(1)

    def below(self, bounds: Sequence[int], step: int, stream: int = 1) -> list[int]:
        """A whole number in 0 … b − 1 for each bound b, uniform up to b/2³²."""
        words = self.bits(step, stream).uniform32(0, len(bounds)).tolist()
        return [word * bound >> 32 for word, bound in zip(words, bounds, strict=True)]


@dataclass(frozen=True, slots=True)
class SearchTask:
    """One image to attack.

    Attributes:
        ball: the ball its points must lie in.
        noise: its random numbers.
        loss: the loss of the original, measured by the first query.
        budget: maximum number of queries for the image, the first included.
        floats: whether the victim accepts fractions of a level.
    """

    ball: Ball
    noise: ImageNoise
    loss: float
    budget: int
    floats: bool = field(default=False)


class Method(Protocol):
    """An attack method: its settings and its search."""

    def search(self, task: SearchTask) -> Search: ...
