"""A tuning run on the screen: progress while it runs, before and after when it is done."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forq.cli import _screen

if TYPE_CHECKING:
    from forq.config import RunConfig
    from forq.journal import Line
    from forq.runfiles import Scored
    from forq.runs import Run
    from forq.tasks import Score


def tune(
    config: RunConfig, out: Path, *, resume: bool = False, tensorboard: bool = False, as_json: bool = False
) -> dict[str, Any]:
    """Begin or resume a run, show it, save it, score the saved file against the base; the result, also as JSON."""
    import torch

    from forq import journal
    from forq.memory import peak_bytes
    from forq.models.load import load
    from forq.report import tensorboard as board
    from forq.runs import Run
    from forq.train import open_task

    if tensorboard:
        board.require()
    torch.set_num_threads(config.threads)
    how: Any = {"kernel": config.kernel, "activations": config.activations}
    began = time.perf_counter()
    with _screen.err.status("loading"):
        model = load(config.checkpoint, config.device, **how)
        task = open_task(config.task, model, config.seed)
        run = Run.resume(out, config, model, task) if resume else Run.begin(out, config, model, task)
    _screen.told(model)
    rows = _screen.opened(task, model.checkpoint, config.task)
    try:
        watch(run, board.written(run.events(), out / "tensorboard") if tensorboard else run.events())
    except KeyboardInterrupt:
        _screen.err.print(
            "stopped; nothing is lost. Go on with: "
            + shlex.join(["forq", "tune", config.checkpoint, "--out", str(out), "--resume"])
            + (" --tensorboard" if tensorboard else ""),
            highlight=False,
            soft_wrap=True,
        )
        raise
    with _screen.err.status("saving, and scoring what was saved"):
        run.finish()
        saved, adapter, certificate, floor = run.checkpoint, run.adapter, run.certificate, run.floor
        seconds = time.perf_counter() - began
        best, first, rounding = run.best, run.first, run.rounding
        del run, model
        before = task.evaluate(load(config.checkpoint, config.device, **how), "test")
        tuned = load(saved or config.checkpoint, config.device, adapter=adapter, **how)
        after = task.evaluate(tuned, "test")
    assert best is not None and first is not None
    result = {
        "validation": {"before": _plain(first.score), "after": _plain(best.score)},
        "test": {"before": _plain(before), "after": _plain(after)},
        "data": rows.plain(),
        "step": best.trained,
        "forwards": journal.read(out / "journal.jsonl").forwards,
        "rounding": rounding,
        "certificate": certificate,
        "floor": floor,
        "seconds": round(seconds, 1),
        "peak_mb": peak_bytes() // 1_000_000,
        "checkpoint": None if saved is None else str(saved),
        "adapter": None if adapter is None else str(adapter),
        "journal": str(out / "journal.jsonl"),
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if as_json:
        _screen.data(result)
    else:
        _screen.table(
            f"{config.recipe}, {config.steps} steps; best on validation after {best.trained}",
            ["", "before", "after"],
            [*_rows("validation", first.score, best.score), *_rows("test (the saved file)", before, after)],
        )
        _screen.out.print(f"rounding to the file's dtype changed {rounding:.1e} of what moves", highlight=False)
        if certificate is not None:
            _screen.out.print(
                f"ended after {certificate:.0f} audits in a row that found no better neighbour", highlight=False
            )
        if floor is not None:
            _screen.out.print(
                "at the floor of its grid: of the last audits the better side was worse than staying, by "
                f"{-floor:.2g} on average; with probes of this size the grid resolves no more; take a finer one "
                "(--bits), fewer coordinates a step (estimator.noise), or let the scales move",
                highlight=False,
                soft_wrap=True,
            )
        for name in ("checkpoint", "adapter", "journal"):
            if result[name] is not None:
                _screen.out.print(f"{name:<11} {result[name]}", highlight=False, soft_wrap=True)
    return result


def watch(run: Run, events: Iterable[Line | Scored]) -> None:
    """Drain a run's events into a progress bar on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from forq.runfiles import Scored

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[says]}"),
    )
    with Progress(*columns, console=_screen.err, transient=False) as bar:
        shown = bar.add_task("calibrating", total=run.config.steps, says="")
        loss, scored, trained = "", "", 0
        for event in events:
            if isinstance(event, Scored):
                best = run.best
                scored = f"validation {_main(event.score)}" + (f", best {_main(best.score)}" if best else "")
            elif event.kind == "train":
                trained += 1
                loss = f"loss {event.notes['loss']:.3f}"
            bar.update(
                shown,
                completed=trained,
                description="tuning" if trained else "calibrating",
                says=", ".join(part for part in (loss, scored) if part),
            )


def _main(score: Score) -> str:
    return _screen.number(score.main, score.value)


def _rows(name: str, before: Score, after: Score) -> list[list[str]]:
    then = after.numbers()
    return [
        [f"{name}, {key}", _screen.number(key, value), _screen.number(key, then[key])]
        for key, value in before.numbers().items()
    ]


def _plain(score: Score) -> dict[str, Any]:
    return {"rows": score.rows, **score.numbers()}
