"""Watched data sets: scored at every evaluation beside the task, so that a run shows what it breaks.

A watch is another task on other data. At each evaluation its first validation rows are scored with
the weights as they are saved, and the predictions on their tokens are compared with those of the
model that the run began from: the mean of KL(base ‖ tuned), in nats a token
(:mod:`forq.tasks.objectives.divergence`). Nothing of it enters a step, so journals and replays do
not depend on a watch.

Law of the limit: an evaluation whose divergence is greater than the limit is never the best, and
the run ends there in good order. What is saved is the best evaluation within the limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forq.errors import ConfigError
from forq.models.loaded import LoadedModel
from forq.runs.config import RunConfig, WatchConfig
from forq.runs.fixed_options import fix_options
from forq.runs.metrics import Watched
from forq.runs.open_task import open_task
from forq.tasks import Split, Task
from forq.tasks.objectives.divergence import Reference
from forq.tokens.batches import Batch

_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_SPLIT: Split = "validation"


@dataclass(frozen=True, slots=True, eq=False)
class Watch:
    """A watched data set, opened for a model.

    Attributes:
        rows: number of validation rows that are scored.
        limit: the largest divergence that is let pass; None: every one.
    """

    name: str
    task: Task
    rows: int
    limit: float | None
    _reference: list[Reference] = field(default_factory=list)

    def remember(self, model: LoadedModel) -> None:
        """Keep what the model predicts now; the model is the run's base."""
        if model.kind != "causal":
            return
        positions = 0
        for batch in self.task.batches(_SPLIT, self.rows):
            if not isinstance(batch, Batch):
                return
            positions += len(batch.target)
        reference = Reference(positions)
        self.task.evaluate(reference.keeping(model), _SPLIT, self.rows)
        self._reference[:] = [reference]

    def measured(self, model: LoadedModel) -> Watched:
        """The score of the rows and, where the model predicts tokens, the divergence from the base."""
        if not self._reference:
            return Watched(self.task.evaluate(model, _SPLIT, self.rows), None)
        reference = self._reference[0]
        score = self.task.evaluate(reference.comparing(model), _SPLIT, self.rows)
        return Watched(score, reference.mean)

    def exceeded(self, found: Watched) -> bool:
        """Whether a measurement is beyond the limit."""
        return self.limit is not None and found.kl is not None and not found.kl <= self.limit


def opened(config: RunConfig, model: LoadedModel) -> tuple[Watch, ...]:
    """The watched data sets of a run's settings.

    Raises:
        ConfigError: a task cannot be opened, or a limit is set where the model predicts no tokens.
        DataError: the data cannot be used.
    """
    found = []
    for name, watch in config.watch.items():
        if watch.limit is not None and model.kind != "causal":
            raise ConfigError(
                f"watch_limit {name}: expected a causal language model, whose predictions of tokens can be compared, "
                f"found a model of kind {model.kind}; leave the limit out"
            )
        task = open_task(watch.as_task(), model, config.seed)
        found.append(Watch(name, task, watch.rows, watch.limit))
    return tuple(found)


def as_opened(config: RunConfig, watches: Sequence[Watch]) -> RunConfig:
    """The settings with what opening the watched data sets has fixed."""
    settings = dict(config.watch)
    for watch in watches:
        options = fix_options(settings[watch.name].as_task(), watch.task).options
        settings[watch.name] = settings[watch.name].model_copy(update={"options": options})
    return config.model_copy(update={"watch": settings})


def parts(text: str) -> tuple[str, str]:
    """Task and data of ``TASK:DATA``; without data it is empty."""
    task, _, data = text.partition(":")
    return task.strip(), data


def settings(
    watched: Mapping[str, tuple[str, str]],
    limits: Mapping[str, float],
    begun: Mapping[str, WatchConfig] | None = None,
) -> dict[str, WatchConfig]:
    """The settings of watched data sets.

    Args:
        watched: task and data by name.
        limits: the limit of some of them.
        begun: the settings of the run that goes on; what is not named here stays as it was.

    Raises:
        ConfigError: a name cannot be one, a limit is not a positive number or belongs to no watch.
    """
    found = dict(begun or {})
    for name, (task, data) in watched.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"watch: expected a name of letters, digits, - and _, found {name!r}; rename it")
        found[name] = (
            found[name].model_copy(update={"task": task, "data": data})
            if name in found
            else WatchConfig(task=task, data=data)
        )
    for name, limit in limits.items():
        if name not in found:
            raise ConfigError(
                f"watch_limit: expected the name of a --watch ({', '.join(found) or 'there is none'}), found {name!r}"
            )
        if not 0 < limit < float("inf"):
            raise ConfigError(f"watch_limit {name}: expected a number of nats above 0, found {limit}; 0.05, say")
        found[name] = found[name].model_copy(update={"limit": limit})
    return found
