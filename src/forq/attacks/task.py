"""What a method is given for one image, and the noise it may use."""

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
"""Yields images, is sent their losses; the engine closes it at success or where the budget ends."""


@dataclass(frozen=True, slots=True)
class Draws:
    """An image's own random numbers: a pure function of (seed, image, step, stream), whatever else is running.

    Attributes:
        seed: the run's seed.
        leaf: identity of the image, from its content.
    """

    seed: int
    leaf: int

    @classmethod
    def of(cls, seed: int, image: Image, classes: int) -> Draws:
        """The numbers of an image that is attacked on a label or a target."""
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
        return cls(seed, leaf_id(f"image/{image.shape}/{digest}/{classes}"))

    def bits(self, step: int, stream: int = 0) -> Bits:
        """The bits of a step."""
        return Bits(direction_seed(self.seed, step), self.leaf, stream)

    def signs(self, step: int, count: int, stream: int = 0) -> Levels:
        """``count`` times −1 or +1."""
        packed = self.bits(step, stream).bytes(0, -(-count // 8))
        return np.unpackbits(packed, count=count, bitorder="little").astype(np.int16) * np.int16(2) - np.int16(1)

    def below(self, bounds: Sequence[int], step: int, stream: int = 1) -> list[int]:
        """One whole number 0 … b − 1 for every bound b, uniform to within b/2³²."""
        words = self.bits(step, stream).uniform32(0, len(bounds)).tolist()
        return [word * bound >> 32 for word, bound in zip(words, bounds, strict=True)]


@dataclass(frozen=True, slots=True)
class Task:
    """One image to attack.

    Attributes:
        ball: where its points lie.
        draws: its noise.
        loss: the loss at the original, which the engine has asked for already: its first query.
        budget: queries of the image in all, that one included.
        floats: whether the victim can score levels between whole ones.
    """

    ball: Ball
    draws: Draws
    loss: float
    budget: int
    floats: bool = field(default=False)


class Method(Protocol):
    """A method: settings, and the search they mean."""

    def search(self, task: Task) -> Search: ...
