"""Which oracle measures a run's losses with a model of this process."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from forq.coordinates.space import Space
from forq.errors import ConfigError
from forq.models.loaded import LoadedModel
from forq.models.prefix import prefix_of
from forq.runs.config import RunConfig
from forq.runs.divided import Divided
from forq.runs.oracles.curvature import WithCurvature, across, neighbours
from forq.runs.oracles.local import Local
from forq.scalars.chain import own
from forq.scalars.losses import Losses
from forq.scalars.quadratic import tried
from forq.scalars.rules import newton
from forq.tasks import InOrder, Predicts, Task
from forq.tasks.objectives.predictions import Predictions, Uniform


def measures(config: RunConfig, model: LoadedModel, task: Task, space: Space) -> Divided:
    """An oracle of losses, or of losses and curvature where the method steps by it.

    Raises:
        ConfigError: the method needs curvature, and the task has none.
    """
    prefix = prefix_of(model, space.leaves)

    def once(batch: Any) -> AbstractContextManager[None]:
        """What stands before all that moves is computed once for all of a step's forward passes."""
        return nullcontext() if prefix is None else prefix.once_for(batch)

    if config.method.needs_curvature:
        if not isinstance(task, Predicts):
            raise ConfigError(
                "rule.step=newton measures the curvature of a loss, and this objective has none: expected a task "
                "without --reward; use --recipe qzo-slopes"
            )
        predict = task.predictions

        def predictions(batch: Any, at: Predictions | None, uniform: Uniform) -> Predictions:
            with once(batch):
                return predict(model, batch, at, uniform)

        dampings = tried(own(config.method.rule, newton.Settings).fixed)
        parts = across if isinstance(task, InOrder) and task.in_order else neighbours
        return WithCurvature(space, task.batch, predictions, config.seed, dampings, parts)
    measure = task.losses if config.method.needs_rows else task.loss

    def loss(batch: Any) -> float | Losses:
        with once(batch):
            return measure(model, batch)

    return Local(space, task.batch, loss)
