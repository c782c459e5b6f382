"""A group that is probed apart: its own ε, η, C and noise; a calibration measures those left open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from forq.coordinates.domain import Unit
from forq.noise.law import law, sized
from forq.scalars.calibrations import GroupResult

CELLS = ("cells:auto",)
"""Noise of integers; the calibration chooses its radius."""


@dataclass(frozen=True, slots=True)
class ProbedGroup:
    """A group that is probed apart (``all`` where all leaves are probed together), with its settings."""

    name: str
    kind: str
    eps: float | Literal["auto"]
    lr: float | Literal["auto"]
    clip: float | Literal["auto", "off"]
    newton: float
    noise: tuple[str, ...]
    unit: Unit
    voted: bool
    shaped: bool
    directions: float
    newton_step: bool = False

    @property
    def sized(self) -> bool:
        """Whether the calibration chooses how far integers move."""
        return any(law(noise).sized is not None for noise in self.noise)

    @property
    def open(self) -> bool:
        """Whether a calibration has something to measure for the group."""
        if self.newton_step:
            return self.eps == "auto"
        return self.sized or ("auto" in (self.eps, self.lr, self.clip) and not self.voted)

    def numbers(self, result: GroupResult | None) -> Numbers:
        """The group's numbers; a calibration's result stands for those that are left open."""
        if self.newton_step:
            eps = self.eps if isinstance(self.eps, float) or result is None else result.eps
            assert isinstance(eps, float)
            return Numbers(eps, None, None, self.noise)
        if self.voted or self.sized:
            return self._cells(result)
        measured = {} if result is None else {"eps": result.eps, "lr": result.lr, "clip": result.clip}

        def number(name: str, value: float | str) -> float:
            return measured[name] if isinstance(value, str) else value

        bound = None if self.clip == "off" else number("clip", self.clip)
        return Numbers(number("eps", self.eps), number("lr", self.lr), bound, self.noise)

    def _cells(self, result: GroupResult | None) -> Numbers:
        eps = 1.0 if self.eps == "auto" else self.eps
        if result is None or result.radius is None:
            return Numbers(eps, None if self.lr == "auto" else self.lr, None, self.noise)
        radius = result.radius
        if self.lr != "auto":
            rate: float | None = self.lr
        elif self.voted:
            rate = None
        else:
            # In standard units each direction of a population goes as far as one alone would; else on average one cell.
            rate = self.directions if self.shaped else 1.0 / (result.slope * radius)
        return Numbers(eps, rate, None, tuple(sized(noise, radius) for noise in self.noise))


@dataclass(frozen=True, slots=True)
class Numbers:
    """Probe radius, learning rate, bound of a slope and laws of z of a group.

    ``lr`` is ``None`` where a step by vote is ±z, as a probe of ε = 1; ``clip``, where slopes have no bound.
    """

    eps: float
    lr: float | None
    clip: float | None
    noise: tuple[str, ...]
