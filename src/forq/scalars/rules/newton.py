"""The Gauss–Newton step in the subspace of a step's directions. Held-out rows of the batch set its length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, field_validator

from forq.errors import ConfigError, RunError
from forq.scalars.chain import Choices, Frozen, Inputs, Registration
from forq.scalars.losses import Own
from forq.scalars.moves import Move
from forq.scalars.protocols import Estimate, Json, State
from forq.scalars.quadratic import Quadratic, tried

MEMORY = 0.03
"""Weight of the latest step in what the steps confirm."""

ERRORS = 2.0
"""Standard errors that are taken off what the steps confirm: too long a step costs more than one that is too short."""


@dataclass(frozen=True, slots=True)
class Newton:
    """``x ← x − length·(1 + λ)·(F + λD)⁻¹·ĝ`` in the step's directions.

    F is the Fisher matrix and D its mean diagonal (:mod:`forq.scalars.quadratic`). Every step is also tested, for
    several dampings λ: a part of the batch asks for a step, and the rest measures the slope s and the curvature c along
    it. Running means of both give the gain of such steps, s²/2c, and their best length, −s/c. The damping with the
    largest gain is used, or a fixed one. Few rows overfit: other rows do not confirm their steps, so the length becomes
    short, or λ large. A fixed λ of 1 or less shortens a step along what all rows share, such as the bias of a class.
    Each step's noise disturbs that bias, and its correction is then the surest gain of the next step (``LOG.md``).

    Where no gain is certain, the length is set by ``noise``: all such steps of a run together change the predictions by
    about ``noise`` nats. A gradient that is too faint for one batch still adds up over a run.

    Directions of the rows' own (:mod:`forq.scalars.estimators.by_row`) take the step −length·ĝ/D, with D the mean of
    their curvatures. If B rows confirm the share s of a shared direction's slope, they confirm s/(s + B·(1 − s)) of
    a row's own.

    Args:
        share: fraction of the best length that is taken, 0 … 1.
        reach: most that a step may change the predictions on its batch, as the curvature aᵀFa along it: twice the mean
            Kullback–Leibler divergence, in nats. Beyond, the quadratic model is not to be trusted.
        noise: how much all steps of the run change the predictions at least, in nats.
        steps: of the run.
        damping: a fixed λ; None where the gain chooses one of :data:`~forq.scalars.quadratic.DAMPINGS`.

    Raises:
        ConfigError: a value is out of range.
        RunError: an update finds losses without curvature.
    """

    share: float
    reach: float
    noise: float
    steps: int
    damping: float | None = None

    def __post_init__(self) -> None:
        if not (0.0 < self.share <= 1.0 and 0.0 < self.reach < math.inf and 0.0 <= self.noise < math.inf):
            raise ConfigError(
                "rule.newton, rule.reach and rule.noise: expected 0 … 1, a positive number, and 0 or more, found "
                f"{self.share}, {self.reach} and {self.noise}"
            )

    def init(self) -> State:
        none = [0.0] * len(tried(self.damping))
        return {"steps": 0, "slopes": none, "variances": none, "bends": none, "usual": 0.0}

    def update(self, step: int, estimate: Estimate, state: State) -> tuple[Estimate, State]:
        model = estimate.quadratic
        if model is None:
            if estimate.slopes:
                raise RunError(
                    "rule.step=newton: expected an oracle that measures curvature (Losses.fisher and confirmed), found "
                    "losses alone; use forq.runs.oracles.curvature, or --recipe qzo-slopes"
                )
            return replace(estimate, move=Move()), state
        after = _updated(state, model)
        # Earlier steps only: what a batch confirms is correlated with its own noise.
        known = state if state["steps"] else after
        best, length = _best(known, self.damping)
        log_curvature = known["usual"]
        assert isinstance(log_curvature, float)
        confirmed = self.share * length
        # By the mean curvature of earlier batches, so that a steeper batch goes further.
        length = max(confirmed, math.sqrt(2.0 * self.noise / self.steps / math.exp(log_curvature)))
        damping = tried(self.damping)[best]
        direction = model.step(damping)
        of_rows, row_curvature = _step_of_rows(model.own, min(length / self.share, 1.0))
        curvature = length**2 * model.bend(direction) + self.share**2 * row_curvature * math.fsum(
            x * x for x in of_rows
        )
        within = min(1.0, math.sqrt(self.reach / curvature)) if curvature > 0.0 else 1.0
        length *= within
        weights = [self.share * within * x for x in of_rows] + [length * x for x in direction]
        radii = [model.own_radius] * len(of_rows) + list(model.radii)
        terms = tuple(
            replace(term, weight=weight * radius)
            for term, weight, radius in zip(estimate.move.terms, weights, radii, strict=True)
        )
        notes = {"length": length, "sure": float(length <= confirmed), "damping": damping}
        return replace(estimate, move=Move(terms), notes=notes), after


def _step_of_rows(own: Sequence[Own], confirmed: float) -> tuple[list[float], float]:
    """The step along the rows' own directions, in probes and in their order, and their mean curvature D.

    Args:
        confirmed: what a batch confirms of the slope of a direction that all rows share, 0 … 1.
    """
    curvature = math.fsum(probe.bend for probe in own) / len(own) if own else 0.0
    if curvature <= 0.0:
        return [0.0 for probe in own for _ in probe.rises], 0.0
    steps = []
    for probe in own:
        rows = len(probe.rises)
        share = confirmed / (confirmed + rows * (1.0 - confirmed))
        steps += [-share * rise / curvature for rise in probe.rises]
    return steps, curvature


def _updated(state: State, model: Quadratic) -> State:
    """The state after one more step.

    For each damping it holds running means of the confirmed slope (``slopes``, with the ``variances`` of these means)
    and of the confirmed curvature (``bends``). ``usual`` is the running mean of the logarithm of the curvature along
    the gradient. Saved runs use these names.
    """
    steps, log_curvature = state["steps"], state["usual"]
    assert isinstance(steps, int) and isinstance(log_curvature, float)
    slopes, variances, curvatures = (_numbers(state[name]) for name in ("slopes", "variances", "bends"))
    weight = max(MEMORY, 1.0 / (steps + 1))
    if (along := model.bend(model.step(math.inf))) <= 0.0:
        return state
    # Slopes and curvatures are pooled apart. With the mean of their ratios SmolLM2 stalled (`LOG.md`).
    for place, (slope, error, curvature) in enumerate(model.confirmed):
        slopes[place] += weight * (slope - slopes[place])
        variances[place] = (1.0 - weight) ** 2 * variances[place] + (weight * error) ** 2
        curvatures[place] += weight * (curvature - curvatures[place])
    log_curvature += weight * (math.log(along) - log_curvature)
    return {
        "steps": steps + 1,
        "slopes": slopes,
        "variances": variances,
        "bends": curvatures,
        "usual": log_curvature,
    }


def _best(state: State, fixed: float | None) -> tuple[int, float]:
    """The index of the damping, and the best length of its step, 0 … 1; 0 where no gain is certain.

    The damping is the fixed one. Else it is the one with the largest certain gain, and the last one if none gains.
    """
    slopes, variances, curvatures = (_numbers(state[name]) for name in ("slopes", "variances", "bends"))
    upper = [slope + ERRORS * math.sqrt(variance) for slope, variance in zip(slopes, variances, strict=True)]
    gains = [s * s / c if s < 0.0 < c else 0.0 for s, c in zip(upper, curvatures, strict=True)]
    if fixed is not None:
        best = tried(fixed).index(fixed)
    else:
        best = max(range(len(gains)), key=lambda place: (gains[place], place))
    return best, min(-upper[best] / curvatures[best], 1.0) if gains[best] > 0.0 else 0.0


def _numbers(value: Json) -> list[float]:
    assert isinstance(value, list)
    return [float(x) for x in value]


class Settings(Frozen):
    """
    Attributes:
        reach: a step ``newton`` changes the predictions by at most half of this number, in nats.
        noise: steps ``newton`` that held-out rows do not confirm together change the predictions by about this number
            of nats.
        damping: damping of steps ``newton``: the one whose step held-out rows ``confirmed`` most, a number, or
            ``auto``: settled by the task (:mod:`forq.runs.settled`).
    """

    reach: Annotated[float, Field(gt=0)] = 0.1
    noise: Annotated[float, Field(ge=0)] = 0.03
    damping: Literal["auto", "confirmed"] | float = "confirmed"

    @field_validator("damping")
    @classmethod
    def _positive(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0.0 < value < math.inf:
            raise ConfigError(f"rule.damping: expected a positive number, confirmed or auto, found {value}")
        return value

    @property
    def fixed(self) -> float | None:
        """The fixed damping, if it is one."""
        return self.damping if isinstance(self.damping, float) else None


def make(settings: Settings, inputs: Inputs) -> Newton | None:
    """The rule, where the step is Gauss–Newton's."""
    if inputs.step != "newton":
        return None
    return Newton(inputs.newton, settings.reach, settings.noise, inputs.course.steps, settings.fixed)


def check(settings: Settings, choices: Choices) -> None:
    """The probes must be one-sided, around the point itself."""
    if choices.step == "newton" and choices.estimator not in ("one_sided", "by_row"):
        raise ConfigError(
            f"rule.step=newton: expected estimator.name=one_sided or by_row, whose first probe is the point itself, "
            f"found {choices.estimator}"
        )


registration = Registration(order=40, settings=Settings, make=make, steps=("newton",), check=check)


def example() -> Newton:
    """An instance for the contract tests."""
    return Newton(share=0.6, reach=0.1, noise=0.01, steps=100)
