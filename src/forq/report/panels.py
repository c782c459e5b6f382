"""The charts of a page: scores and losses, and the training steps."""

from __future__ import annotations

from collections.abc import Sequence

from forq.report import curves
from forq.report.charts import Chart, chart
from forq.report.curves import Group, note, share
from forq.report.record import Record
from forq.tasks import SHARES


def learning(groups: Sequence[Group]) -> list[Chart]:
    """Charts of the validation scores, over forward passes and over time, and of the training loss."""
    records = [record for group in groups for record in group.records]
    levels = [name for name in curves.metrics(records) if name.startswith("loss ")]
    charts = []
    for axis, suffix in (("forwards", ""), ("seconds", " over time")):
        charts += [
            chart(
                f"Validation {name}{suffix}",
                [curves.scores(group, name, axis) for group in groups],
                caption=f"{_meaning(name, levels)}; with the weights as they are saved",
                x_label="forward passes" if axis == "forwards" else "seconds",
                share=name in SHARES,
            )
            for name in curves.metrics(records)
            if name not in levels
        ]
    charts.append(_by_level(records, levels))
    training = [curves.steps(group, note("loss")) for group in groups]
    raw = ", single steps in the background" if any(curve is not None and curve.raw for curve in training) else ""
    charts.append(chart("Training loss", training, caption=f"{_meaning('loss', levels)}{_smooth(groups)}{raw}"))
    return [drawn for drawn in charts if drawn is not None]


def watching(groups: Sequence[Group]) -> list[Chart]:
    """Charts of the watched data sets: their loss, and how far the predictions on them moved from the base."""
    records = [record for group in groups for record in group.records]
    names = dict.fromkeys(name for record in records for scored in record.scores for name in scored.watch)
    charts = []
    for name in names:
        limits = {watch.get("limit") for record in records if (watch := record.config.get("watch", {}).get(name))}
        limit = limits.pop() if len(limits) == 1 else None
        charts.append(
            chart(
                f"Watched {name}: loss",
                [curves.watched(group, name, "loss") for group in groups],
                caption="nats; with the weights as they are saved",
            )
        )
        charts.append(
            chart(
                f"Watched {name}: divergence",
                [curves.watched(group, name, "kl") for group in groups],
                caption="mean KL(base ‖ tuned), nats a token; 0: it predicts as before",
                rule=None if limit is None else (float(limit), "limit"),
            )
        )
    return [drawn for drawn in charts if drawn is not None]


def _meaning(name: str, levels: Sequence[str]) -> str:
    unit = "mean squared error" if levels else "nats"
    return unit if name == "loss" else "higher is better"


def _by_level(records: Sequence[Record], levels: Sequence[str]) -> Chart | None:
    """Chart of the validation loss by quarter of the noise levels, before and at the best step, means over runs."""
    sides: list[curves.Curve] = []
    for label, index in (("before", 0), ("best", -1)):
        best = [[row for row in record.scores if row.best] for record in records]
        scored = [rows[index] for rows in best if rows]
        means = [
            (float(quarter), sum(row.score.metrics[name] for row in scored) / len(scored))
            for quarter, name in enumerate(levels, 1)
            if scored and all(name in row.score.metrics for row in scored)
        ]
        sides.append(curves.Curve(label, len(sides), tuple(means)))
    return chart(
        "Validation loss by noise",
        sides,
        caption="mean squared error, mean over the runs: before (first colour) and at the best step (second)",
        x_label="quarter of the noise levels, least noise first",
    )


def stepping(groups: Sequence[Group]) -> list[Chart]:
    """Charts of the steps: slopes, strides, and coordinates that moved, were cut or were rounded away."""
    records = [record for group in groups for record in group.records]
    clips = {clip for record in records if (clip := record.calibration.get("clip")) is not None}
    lines = [step.line for record in records for step in record.steps]
    smooth = _smooth(groups)
    charts = [
        chart(
            "Slope",
            [curves.steps(group, note("slope")) for group in groups],
            caption=f"root mean square of a step's directional derivatives, before clipping{smooth}",
            log=True,
            rule=(clips.pop(), "clip") if len(clips) == 1 else None,
        ),
        chart(
            "Stride",
            [curves.steps(group, note("stride")) for group in groups],
            caption=f"root mean square of the steps along the directions, in leaf units{smooth}",
            log=True,
        ),
        chart(
            "Coordinates changed",
            [curves.steps(group, share("changed")) for group in groups],
            caption=f"share of all coordinates that a step moved{smooth}",
            share=True,
        ),
    ]
    for name, title, which in (
        ("cut", "Coordinates cut", "that were cut at a bound"),
        ("rounded_away", "Coordinates rounded away", "whose step was rounded to zero"),
    ):
        if any(getattr(line.moved, name) for line in lines):
            curve = [curves.steps(group, share(name)) for group in groups]
            charts.append(chart(title, curve, caption=f"share of all coordinates {which}{smooth}", share=True))
    if any(line.notes.get("bad") for line in lines):
        charts.append(
            chart(
                "Losses that were not finite",
                [curves.steps(group, note("bad")) for group in groups],
                caption=f"among the probes of a step; their directions are dropped{smooth}",
            )
        )
    return [drawn for drawn in charts if drawn is not None]


def never(groups: Sequence[Group]) -> list[str]:
    """Clauses that replace the charts in which every value would be zero."""
    lines = [step.line for group in groups for record in group.records for step in record.steps]
    clauses = [] if any(line.moved.cut for line in lines) else ["no coordinate was cut at a bound"]
    clauses += [] if any(line.notes.get("bad") for line in lines) else ["every loss was finite"]
    return clauses if lines else []


def _smooth(groups: Sequence[Group]) -> str:
    width = curves.window(max(len(record.steps) for group in groups for record in group.records))
    return f"; moving mean of {width} steps" if width > 1 else ""
