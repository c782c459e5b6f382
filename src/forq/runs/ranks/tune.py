"""``forq.tune_on_ranks``: ``forq.tune`` in several processes of torchrun."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from forq.errors import ConfigError
from forq.models.load import load
from forq.models.loaded import LoadedModel
from forq.runs.base_values import restore_base
from forq.runs.config import RunConfig
from forq.runs.data import Data, path_of
from forq.runs.open_task import open_task, settled_task
from forq.runs.ranks import session
from forq.runs.ranks.device import own_device
from forq.runs.ranks.team import Team
from forq.runs.run import Run
from forq.runs.tune import tune
from forq.tasks import Task


def tune_on_ranks(
    model: LoadedModel | str | Path,
    task: str | Task,
    data: Data = "",
    *,
    out: str | Path,
    timeout: float | None = None,
    **settings: Any,
) -> Run | None:
    """Tune as :func:`forq.tune`, in every process that torchrun began; call it in all of them alike.

    The chief's settings are the run's. Model, data and device are each rank's own, and ranks whose base or rows differ
    are refused.

    Args:
        model, task, data, out: as in :func:`forq.tune`.
        timeout: seconds until a silent rank ends the group; None: ten forward passes, and 10 s at least.
        settings: further arguments of :func:`forq.tune`.

    Returns:
        The finished run on the rank that wrote it; None on the others.

    Example:
        >>> run = forq.tune_on_ranks("opt-125m-gptq", "text", "notes.txt", out="run", resume=True)   # doctest: +SKIP

    Raises:
        ConfigError: as in :func:`forq.tune`, or a model is to be quantized on load.
        RunError: ranks do not meet, differ, or one was lost. Under ``torchrun --max-restarts`` and with ``resume=True``
            the run then goes on from its journal.
    """
    if settings.get("quantize_on_load") is not None:
        raise ConfigError("quantize_on_load: expected one process, found several ranks; quantize the model first")
    folder = Path(out)
    with Team.join(timeout) as team:
        session.elected(team, folder)
        loaded = model if isinstance(model, LoadedModel) else load(model, own_device())
        if team.leads:
            return tune(loaded, task, data, out=folder, team=team, **settings)
        with tempfile.TemporaryDirectory(prefix="forq-") as rows:
            own = path_of(data, task, Path(rows)) if isinstance(task, str) else ""

            def placed(run: RunConfig) -> RunConfig:
                named = {"checkpoint": str(loaded.checkpoint.path), "device": str(loaded.device)}
                threads = {"threads": torch.get_num_threads()}
                return run.model_copy(update={**named, **threads, "task": run.task.model_copy(update={"data": own})})

            config = session.agreed(team, None, placed, reward=settings.get("reward"))

            def opened(run: RunConfig) -> Task:
                restore_base(loaded)  # the chief's begins from the checkpoint too
                return open_task(run.task, loaded, run.seed) if isinstance(task, str) else settled_task(task, loaded)

            session.follow(team, loaded, config, opened, folder)
    return None
