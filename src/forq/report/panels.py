"""The charts of a page, each from records: what was learned, and how the steps went."""

from __future__ import annotations

from collections.abc import Sequence

from forq.report import curves
from forq.report.charts import Chart, chart
from forq.report.curves import Group, note, share
from forq.report.record import Record
from forq.tasks import SHARES


def learning(found: Sequence[Group]) -> list[Chart]:
    """What was learned: scores over forwards and over time, and the training loss."""
    records = [record for group in found for record in group.records]
    levels = [name for name in curves.metrics(records) if name.startswith("loss ")]
    made = []
    for axis, how in (("forwards", ""), ("seconds", " over time")):
        made += [
            chart(
                f"Validation {name}{how}",
                [curves.scores(group, name, axis) for group in found],
                caption=f"{_meaning(name, levels)}; as the file will hold the weights",
                x_label="forward passes" if axis == "forwards" else "seconds",
                share=name in SHARES,
            )
            for name in curves.metrics(records)
            if name not in levels
        ]
    made.append(_by_level(records, levels))
    training = [curves.steps(group, note("loss")) for group in found]
    behind = ", the steps themselves behind it" if any(curve is not None and curve.raw for curve in training) else ""
    made.append(chart("Training loss", training, caption=f"{_meaning('loss', levels)}{_smooth(found)}{behind}"))
    return [one for one in made if one is not None]


def _meaning(name: str, levels: Sequence[str]) -> str:
    unit = "mean squared error" if levels else "nats"
    return unit if name == "loss" else "higher is better"


def _by_level(records: Sequence[Record], levels: Sequence[str]) -> Chart | None:
    """Validation loss by quarter of the noise levels, before and at the best, means over the runs."""
    sides: list[curves.Curve] = []
    for label, best in (("before", False), ("best", True)):
        scored = [pick[-1 if best else 0] for one in records if (pick := [row for row in one.scores if row.best])]
        means = [
            (float(place), sum(one.score.metrics[name] for one in scored) / len(scored))
            for place, name in enumerate(levels, 1)
            if scored and all(name in one.score.metrics for one in scored)
        ]
        sides.append(curves.Curve(label, len(sides), tuple(means)))
    return chart(
        "Validation loss by noise",
        sides,
        caption="mean squared error, means over the runs: before (first colour) and at the best (second)",
        x_label="quarter of the noise levels, the least noised first",
    )


def stepping(found: Sequence[Group]) -> list[Chart]:
    """How the steps went: slopes, strides, and what of a step bounds and rounding took."""
    clips = {x for group in found for record in group.records if (x := record.found.get("clip")) is not None}
    lines = [step.line for group in found for record in group.records for step in record.steps]
    smooth = _smooth(found)
    made = [
        chart(
            "Slope",
            [curves.steps(group, note("slope")) for group in found],
            caption=f"root mean square of a step's directional derivatives, before the clip{smooth}",
            log=True,
            rule=(clips.pop(), "clip") if len(clips) == 1 else None,
        ),
        chart(
            "Stride",
            [curves.steps(group, note("stride")) for group in found],
            caption=f"root mean square of the steps along the directions, in leaf units{smooth}",
            log=True,
        ),
        chart(
            "Coordinates changed",
            [curves.steps(group, share("changed")) for group in found],
            caption=f"share of all coordinates that a step moved{smooth}",
            share=True,
        ),
    ]
    for name, title, said in (
        ("cut", "Coordinates cut", "that a bound held back"),
        ("rounded_away", "Coordinates rounded away", "whose step was rounded to nothing"),
    ):
        if any(getattr(line.moved, name) for line in lines):
            curve = [curves.steps(group, share(name)) for group in found]
            made.append(chart(title, curve, caption=f"share of all coordinates {said}{smooth}", share=True))
    if any(line.notes.get("bad") for line in lines):
        made.append(
            chart(
                "Losses that were no numbers",
                [curves.steps(group, note("bad")) for group in found],
                caption=f"of a step's probes; their directions are dropped{smooth}",
            )
        )
    return [one for one in made if one is not None]


def never(found: Sequence[Group]) -> list[str]:
    """In words, what would be a chart of nothing but zeros."""
    lines = [step.line for group in found for record in group.records for step in record.steps]
    said = [] if any(line.moved.cut for line in lines) else ["no bound held back a coordinate"]
    said += [] if any(line.notes.get("bad") for line in lines) else ["every loss was a number"]
    return said if lines else []


def _smooth(found: Sequence[Group]) -> str:
    width = curves.window(max(len(record.steps) for group in found for record in group.records))
    return f"; moving mean of {width} steps" if width > 1 else ""
