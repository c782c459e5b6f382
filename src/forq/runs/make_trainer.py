"""The trainer of a run's folder: its profile and its watched data are opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from forq.coordinates.profile import FILE, Profile
from forq.coordinates.space import Space
from forq.models.loaded import LoadedModel
from forq.runs.config import RunConfig
from forq.runs.trainer import Trainer
from forq.runs.watch import as_opened, opened
from forq.scalars.protocols import Oracle
from forq.tasks import Task

if TYPE_CHECKING:  # a torch without torch.distributed tunes in one process
    from forq.runs.ranks.team import Team


def make_trainer(
    folder: Path,
    config: RunConfig,
    model: LoadedModel,
    task: Task,
    oracle: Callable[[Space], Oracle] | None,
    team: Team | None,
) -> Trainer:
    """The trainer, with the run's copy of the profile, or the given profile before it is copied.

    Raises:
        ConfigError: a profile or watched data cannot be read, a setting is invalid, or nothing can move.
    """
    profile = None
    if config.profile is not None:
        own = folder / FILE
        profile = Profile.read(own if own.exists() else Path(config.profile))
    watches = opened(config, model)
    config = as_opened(config, watches)
    return Trainer(config, model, task, profile=profile, oracle=oracle, watches=watches, team=team)
