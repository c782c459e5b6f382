"""The curves of a page, from records: runs that differ only in their seed become one curve with a spread."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from forq.report.record import Record, Step
from forq.runs.metrics import Scored

POINTS = 240
"""Maximum number of points per curve; a chart cannot show more."""

WINDOWS = 20
"""The window of the moving mean is the number of steps divided by this."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Group:
    """Runs with one method on one task, drawn as one curve.

    Attributes:
        index: index of its colour.
    """

    label: str
    index: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve, with a band of one standard deviation over runs, or the raw points of a single run.

    Attributes:
        low, high: mean minus and plus one standard deviation; empty for a single run.
        raw: the points before smoothing, thinned; empty if the curve is not smoothed.
    """

    label: str
    index: int
    points: tuple[Point, ...]
    low: tuple[Point, ...] = ()
    high: tuple[Point, ...] = ()
    raw: tuple[Point, ...] = ()


def groups(records: Sequence[Record]) -> list[Group]:
    """Group the runs that differ only in their seed; the order of the records is kept."""
    by_method: dict[str, list[Record]] = {}
    for record in records:
        by_method.setdefault(_method(record), []).append(record)
    result: list[Group] = []
    for index, members in enumerate(by_method.values()):
        label = _label(members)
        taken = sum(group.label == label or group.label.startswith(f"{label} #") for group in result)
        result.append(Group(f"{label} #{taken + 1}" if taken else label, index, tuple(members)))
    return result


def scores(group: Group, name: str, axis: str) -> Curve | None:
    """A validation metric against ``forwards`` or ``seconds``; ``None`` if it was never scored."""
    return _measured(group, lambda scored: scored.score.numbers().get(name), axis)


def watched(group: Group, watch: str, name: str) -> Curve | None:
    """A metric of a watched data set against ``forwards``; ``None`` if it was never measured."""
    return _measured(
        group, lambda scored: scored.watch[watch].numbers().get(name) if watch in scored.watch else None, "forwards"
    )


def _measured(group: Group, value: Callable[[Scored], float | None], axis: str) -> Curve | None:
    def points(record: Record) -> dict[int, Point]:
        by_step = {}
        for scored in record.scores:
            y = value(scored)
            if y is not None and math.isfinite(y):
                by_step[scored.trained] = (_position(record, scored, axis), y)
        return by_step

    return _curve(group, [points(record) for record in group.records])


def steps(group: Group, value: Callable[[Step], float], axis: str = "forwards") -> Curve | None:
    """A value of the training steps, smoothed; ``None`` if no step has it."""
    runs = []
    for record in group.records:
        values = [(step, value(step)) for step in record.steps]
        runs.append(
            {
                step.trained: (float(step.forwards if axis == "forwards" else step.seconds), y)
                for step, y in values
                if math.isfinite(y)
            }
        )
    raw = tuple(thinned(list(runs[0].values()))) if len(runs) == 1 and window(len(runs[0])) > 1 else ()
    return _curve(group, [_smoothed(points) for points in runs], raw)


def note(name: str) -> Callable[[Step], float]:
    """The note with that name in a training step."""
    return lambda step: step.line.notes.get(name, math.nan)


def share(name: str) -> Callable[[Step], float]:
    """``changed``, ``cut`` or ``rounded_away`` as a share of all coordinates."""
    return lambda step: getattr(step.line.moved, name) / step.line.moved.total if step.line.moved.total else math.nan


def metrics(records: Iterable[Record]) -> list[str]:
    """Names of the validation metrics, the loss first."""
    scores = (scored.score for record in records for scored in record.scores)
    return list(dict.fromkeys(name for score in scores for name in score.numbers()))


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation; the deviation is ``None`` for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most ``POINTS`` points, evenly spaced, with the first and the last."""
    if len(points) <= POINTS:
        return list(points)
    return [points[round(k * (len(points) - 1) / (POINTS - 1))] for k in range(POINTS)]


def _curve(group: Group, runs: Sequence[Mapping[int, Point]], raw: tuple[Point, ...] = ()) -> Curve | None:
    """Mean and spread at the steps that all runs have."""
    common = sorted(set.intersection(*(set(points) for points in runs)))
    if not common:
        return None
    middle, low, high = [], [], []
    for trained in common:
        x = statistics.fmean(points[trained][0] for points in runs)
        y, spread = mean_and_spread([points[trained][1] for points in runs])
        middle.append((x, y))
        if spread is not None:
            low.append((x, y - spread))
            high.append((x, y + spread))
    points, under, over = (tuple(thinned(part)) for part in (middle, low, high))
    return Curve(group.label, group.index, points, under, over, raw)


def _smoothed(points: Mapping[int, Point]) -> dict[int, Point]:
    """The moving mean over a twentieth of the points; at the ends the window is cut, to at least half."""
    keys, half = list(points), window(len(points)) // 2
    sums = [0.0]
    for _, y in points.values():
        sums.append(sums[-1] + y)
    smoothed = {}
    for index, key in enumerate(keys):
        start, stop = max(0, index - half), min(len(keys), index + half + 1)
        smoothed[key] = (points[key][0], (sums[stop] - sums[start]) / (stop - start))
    return smoothed


def window(count: int) -> int:
    """Window of the moving mean for that many points; an odd number."""
    return max(1, count // WINDOWS) // 2 * 2 + 1


def _position(record: Record, scored: Scored, axis: str) -> float:
    return float(scored.forwards) if axis == "forwards" else record.seconds_at(scored.trained)


def _method(record: Record) -> str:
    """Everything a run depends on except its seed, as text."""
    header = record.journal.header
    method = {name: value for name, value in record.method.items() if name != "seed"}
    task = {name: value for name, value in record.config.get("task", {}).items() if name != "data"}
    every = record.config.get("eval_every")
    names = header.get("names", {}).get("data")
    start = [header.get(key) for key in ("base", "profile", "adapter")]
    watch = {
        name: {key: value for key, value in settings.items() if key != "data"}
        for name, settings in record.config.get("watch", {}).items()
    }
    return json.dumps([start, method, task, names, every, watch], sort_keys=True)


def _label(members: Sequence[Record]) -> str:
    if len(members) == 1:
        return members[0].name
    first, last = min(record.name for record in members), max(record.name for record in members)
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    shared = first[:same].rstrip("-_./ ")
    seeds = {record.method["seed"] for record in members}
    noun = "seeds" if len(seeds) == len(members) else "runs"
    return f"{shared or members[0].method['recipe']} ({len(members)} {noun})"
