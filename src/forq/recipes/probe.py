"""What a step of a recipe probes: settings of the estimator."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from forq.errors import ConfigError
from forq.noise.law import AUTO
from forq.recipes.step import Positive
from forq.scalars.chain import Frozen

USUAL = ("rows:rademacher", "rademacher")
"""Half of the directions by output, half by coordinate."""


def one_or_more(value: object) -> object:
    """One name as a tuple of one."""
    return (value,) if isinstance(value, str) else value


class EstimatorSettings(Frozen):
    """What a step probes.

    Attributes:
        name: the estimator.
        eps: probe radius ε, in units of ``unit``; ``auto`` is calibrated.
        directions: number of directions of a step.
        noise: noise laws of the directions, used in turn. ``auto``: the task decides; by default half of the directions
            are by output row and half by coordinate. ``cells:auto``: the calibration chooses the size.
        step_noise: noise laws of the step's directions, one for each law of ``noise``; by default the same laws. A kind
            with a noise of its own always steps along the directions that it probes.
        phases: several kinds move one after the other, each for its part of the run, rather than by turns.
    """

    name: str
    eps: Positive | Literal["auto"]
    directions: Annotated[int, Field(ge=1, le=1 << 20)] = 1
    noise: tuple[str, ...] = ("rademacher",)
    phases: bool = False
    step_noise: tuple[str, ...] = ()

    _one_or_more = field_validator("noise", "step_noise", mode="before")(one_or_more)

    @model_validator(mode="after")
    def _one_for_each(self) -> EstimatorSettings:
        if self.step_noise and len(self.step_noise) != len(self.noise):
            raise ConfigError(
                f"estimator.step_noise: expected one law for each of the {len(self.noise)} of estimator.noise, found "
                f"{len(self.step_noise)}; set both"
            )
        return self

    @property
    def laws(self) -> tuple[str, ...]:
        """``noise``, or what it is where nothing has settled it."""
        return USUAL if self.noise == (AUTO,) else self.noise

    @property
    def steps_by(self) -> dict[str, str]:
        """From the law of a probe to that of its step."""
        return dict(zip(self.laws, self.step_noise, strict=False))
