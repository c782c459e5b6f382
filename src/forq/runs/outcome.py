"""The outcome of a finished run: result.json, the same from Python and from the command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from forq.inspection.process import peak_bytes
from forq.models.load import load
from forq.runs import journal
from forq.runs.config import RunConfig
from forq.runs.folder import put_json
from forq.runs.run import Run
from forq.tasks import Score, Task, account

FILE = "result.json"

Outcome = dict[str, Any]
"""JSON-ready; the fields of result.json."""


def outcome(run: Run) -> Outcome:
    """What a finished run says of itself; nothing of it holds the model."""
    trainer = run.trainer
    first, best, last = trainer.first, trainer.best, trainer.last
    assert first is not None and best is not None and last is not None
    return {
        "improved": best.trained > 0,
        "worse": last.worse,
        "validation": {"before": plain(first.score), "after": plain(best.score), "last": plain(last.score)},
        "step": best.trained,
        "forwards": journal.read(run.journal).forwards,
        "rounding": run.rounding,
        "certificate": trainer.certificate,
        "floor": trainer.floor,
        "checkpoint": None if run.checkpoint is None else str(run.checkpoint),
        "adapter": None if run.adapter is None else str(run.adapter),
        "journal": str(run.journal),
        "data": account(run.task).plain(),
    }


def conclude(result: Outcome, config: RunConfig, task: Task, folder: Path, began: float) -> Outcome:
    """Score the base and the saved file on the test rows, one after the other, and write result.json.

    Args:
        result: from :func:`outcome`; a caller that can lets go of the model before this loads others.
        began: :func:`time.perf_counter` when the run began.
    """
    options: dict[str, Any] = {"kernel": config.kernel, "activations": config.activations}
    before = task.evaluate(load(config.checkpoint, config.device, **options), "test")
    saved = result["checkpoint"] or config.checkpoint
    after = task.evaluate(load(saved, config.device, adapter=result["adapter"], **options), "test")
    result = {
        **result,
        "test": {"before": plain(before), "after": plain(after)},
        "seconds": round(time.perf_counter() - began, 1),
        "peak_mb": peak_bytes() // 1_000_000,
    }
    put_json(folder / FILE, result)
    return result


def plain(score: Score) -> dict[str, Any]:
    """A score as JSON has it."""
    return {"rows": score.rows, **score.numbers()}
