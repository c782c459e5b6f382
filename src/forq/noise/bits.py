"""Counter-based random bits: a pure function of (seed, leaf name, stream, position).

The generator is Philox-4×64 with ten rounds (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*,
SC 2011; :mod:`forq.noise.philox`). Earlier draws, order, chunks, threads and devices change no bit:

    key     = (run seed, leaf id)
    counter = (block, low word of the direction's seed, stream, 0);  a block is four 64-bit words

so word w of a direction sits at lane w mod 4 of block w // 4, and can be computed alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from forq.noise import philox
from forq.noise.philox import Places, UInt64

UInt32 = NDArray[np.uint32]

Float32 = NDArray[np.float32]

Drawn = NDArray[np.float32 | np.int32]
"""What a law fills; int32 only where it draws integers."""

_WORD = (1 << 64) - 1


@cache
def leaf_id(name: str) -> int:
    """64-bit identity of a leaf, from its name alone: leaves of one shape never share their noise."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class Bits:
    """The endless sequence of random bits of one (seed, leaf, stream).

    Attributes:
        seed: 128-bit direction seed, see :func:`forq.scalars.moves.direction_seed`.
        leaf: leaf id, see :func:`leaf_id`.
        stream: separates independent uses of one direction (1 and 2: two roundings of it, …).
        rows: (stride, count): element i belongs to output row ``i // stride % count`` of its layer.
    """

    seed: int
    leaf: int
    stream: int = 0
    rows: tuple[int, int] = (1, 1)

    def words(self, start: int, count: int) -> UInt64:
        """Words ``start … start + count − 1`` as uint64."""
        return philox.words(*self._law, start, count)

    def bytes(self, start: int, count: int) -> NDArray[np.uint8]:
        """Bytes ``start … start + count − 1``, words in little-endian order."""
        first = start // 8
        words = self.words(first, -(-(start + count) // 8) - first)
        return words.astype("<u8", copy=False).view(np.uint8)[start - 8 * first :][:count]

    def uniform32(self, start: int, count: int) -> UInt32:
        """32-bit integers ``start … start + count − 1``, two to a word, low half first."""
        return self.bytes(4 * start, 4 * count).view("<u4")

    def words_at(self, places: Places) -> UInt64:
        """The words at places, which rise."""
        return philox.words_at(*self._law, places)

    def uniform32_at(self, places: Places) -> UInt32:
        """The 32-bit integers at places, which rise."""
        words = self.words_at(places >> 1) >> (places & 1).astype(np.uint64) * np.uint64(32)
        return words.astype(np.uint32)

    def on(self, stream: int) -> Bits:
        """Another stream of the same direction."""
        return replace(self, stream=stream)

    @property
    def _law(self) -> tuple[philox.Pair, philox.Pair]:
        return (self.seed >> 64, self.leaf), (self.seed & _WORD, self.stream)
