"""Which oracle measures a run's losses with a model of this process."""

from __future__ import annotations

from forq.coordinates.space import Space
from forq.errors import ConfigError
from forq.models.loaded import LoadedModel
from forq.runs.config import RunConfig
from forq.runs.divided import Divided
from forq.runs.oracles.curvature import WithCurvature
from forq.runs.oracles.local import Local
from forq.scalars.chain import own
from forq.scalars.quadratic import tried
from forq.scalars.rules import newton
from forq.tasks import Predicts, Task


def measures(config: RunConfig, model: LoadedModel, task: Task, space: Space) -> Divided:
    """An oracle of losses, or of losses and curvature where the method steps by it.

    Raises:
        ConfigError: the method needs curvature, and the task has none.
    """
    if config.method.needs_curvature:
        if not isinstance(task, Predicts):
            raise ConfigError(
                "rule.step=newton measures the curvature of a loss, and this objective has none: expected a task "
                "without --reward; use --recipe qzo-slopes"
            )
        predictions = task.predictions
        return WithCurvature(
            space, task.batch, lambda batch, at, uniform: predictions(model, batch, at, uniform), config.seed,
            tried(own(config.method.rule, newton.Settings).fixed),
        )  # fmt: skip
    measure = task.losses if config.method.needs_rows else task.loss
    return Local(space, task.batch, lambda batch: measure(model, batch))
