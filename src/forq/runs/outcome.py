"""The outcome of a finished run in result.json, the same from Python and the command line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from forq.inspection.process import peak_bytes
from forq.models.graph.network import GraphNetwork
from forq.models.load import load
from forq.runs import journal
from forq.runs.config import RunConfig
from forq.runs.folder import put_json
from forq.runs.run import Run
from forq.runs.trainer import Trainer
from forq.tasks import Score, Task, account

FILE = "result.json"

Numbers = dict[str, float]
"""A score in JSON: ``rows``, ``loss`` and the task's metrics."""


class Stopped(TypedDict):
    """The watched data set that ended a run, and by how much it was beyond its limit."""

    watch: str
    kl: float
    limit: float
    step: int


class Outcome(TypedDict):
    """The fields of result.json, except those that scoring the saved file adds.

    ``main``: the number of the validation rows that decides which step is saved, ``loss`` or a metric.
    """

    improved: bool
    main: str
    worse: bool
    validation: dict[str, Numbers]
    step: int
    forwards: int
    rounding: float | None
    certificate: float | None
    floor: float | None
    watch: dict[str, dict[str, Numbers]]
    stopped: Stopped | None
    checkpoint: str | None
    adapter: str | None
    journal: str
    data: dict[str, object]


class Confusion(TypedDict):
    """Test rows by right class (first index) and by the class that the model chose."""

    names: list[str]
    before: list[list[int]]
    after: list[list[int]]


class Result(Outcome):
    """The fields of result.json.

    ``served``: the validation rows, scored by the saved graph in a plain session of onnxruntime, where another session
    trained it; beside ``validation`` it shows how far the two differ.
    """

    test: dict[str, Numbers]
    served: Numbers | None
    seconds: float
    peak_mb: int
    confusion: Confusion | None


def outcome(run: Run) -> Outcome:
    """The outcome of a finished run; it keeps no reference to the model."""
    trainer = run.trainer
    first, best, last = trainer.first, trainer.best, trainer.last
    assert first is not None and best is not None and last is not None
    return {
        "improved": best.trained > 0,
        "main": first.score.main,
        "worse": last.worse,
        "validation": {"before": plain(first.score), "after": plain(best.score), "last": plain(last.score)},
        "step": best.trained,
        "forwards": journal.read(run.journal).forwards,
        "rounding": run.rounding,
        "certificate": trainer.certificate,
        "floor": trainer.floor,
        "watch": {
            watch.name: {
                when: {"rows": scored.watch[watch.name].score.rows, **scored.watch[watch.name].numbers()}
                for when, scored in (("before", first), ("after", best), ("last", last))
            }
            for watch in trainer.watches
        },
        "stopped": _stopped(trainer),
        "checkpoint": None if run.checkpoint is None else str(run.checkpoint),
        "adapter": None if run.adapter is None else str(run.adapter),
        "journal": str(run.journal),
        "data": account(run.task).plain(),
    }


def _stopped(trainer: Trainer) -> Stopped | None:
    over = trainer.over
    if over is None or over.over is None:
        return None
    watch = next(watch for watch in trainer.watches if watch.name == over.over)
    kl = over.watch[watch.name].kl
    assert kl is not None and watch.limit is not None
    return {"watch": watch.name, "kl": kl, "limit": watch.limit, "step": over.trained}


def conclude(of: Outcome, config: RunConfig, task: Task, folder: Path, began: float) -> Result:
    """Score the base and then the saved file on the test rows, and write result.json.

    Args:
        of: the run's :func:`outcome`. Callers should release the model first, since this loads
            others.
        began: value of :func:`time.perf_counter` at the start of the run.
    """
    base = load(
        config.checkpoint,
        config.device,
        kernel=config.kernel,
        adapter=config.adapter,
        activations=config.activations,
    )
    before = task.evaluate(base, "test")
    del base  # released before another model is loaded
    saved = load(
        of["checkpoint"] or config.checkpoint,
        config.device,
        kernel=config.kernel,
        adapter=of["adapter"],
        activations=config.activations,
    )
    after = task.evaluate(saved, "test")
    served = plain(task.evaluate(saved, "validation")) if isinstance(saved, GraphNetwork) else None
    result: Result = {
        **of,
        "test": {"before": plain(before), "after": plain(after)},
        "served": served,
        "confusion": _confusion(task, before, after),
        "seconds": round(time.perf_counter() - began, 1),
        "peak_mb": peak_bytes() // 1_000_000,
    }
    put_json(folder / FILE, result)
    return result


def plain(score: Score) -> Numbers:
    """A score in JSON."""
    return {"rows": score.rows, **score.numbers()}


def _confusion(task: Task, before: Score, after: Score) -> Confusion | None:
    names = task.describe().get("names")
    if not after.confusion or not isinstance(names, Sequence):
        return None
    sides = [[list(row) for row in score.confusion] for score in (before, after)]
    return {"names": list(names), "before": sides[0], "after": sides[1]}
