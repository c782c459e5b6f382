"""From records to the curves a page shows: seeds of one method become one curve with its spread."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from forq.report.record import Record, Step
from forq.runs.metrics import Scored

POINTS = 240
"""Points of a curve that are kept; a chart is not wider than so many pixels that matter."""

WINDOWS = 20
"""A smoothed curve is a moving mean over this part of the run."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one method on one task: one curve.

    Attributes:
        index: its colour.
    """

    label: str
    index: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve, and around it one standard deviation over the runs or, of a single run, the raw points.

    Attributes:
        low, high: mean − and + one standard deviation; empty for a single run.
        raw: what a smoothed curve was made of, thinned; empty where nothing was smoothed.
    """

    label: str
    index: int
    points: tuple[Point, ...]
    low: tuple[Point, ...] = ()
    high: tuple[Point, ...] = ()
    raw: tuple[Point, ...] = ()


def groups(records: Sequence[Record]) -> list[Group]:
    """Runs that differ in their seed alone stand together, in the order given."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(_method(record), []).append(record)
    made: list[Group] = []
    for index, members in enumerate(found.values()):
        label = _label(members)
        taken = sum(group.label == label or group.label.startswith(f"{label} #") for group in made)
        made.append(Group(f"{label} #{taken + 1}" if taken else label, index, tuple(members)))
    return made


def scores(group: Group, name: str, axis: str) -> Curve | None:
    """A number of the validation scores against ``forwards`` or ``seconds``; ``None`` where none was scored."""

    def points(record: Record) -> dict[int, Point]:
        found = {}
        for scored in record.scores:
            y = scored.score.numbers().get(name)
            if y is not None and math.isfinite(y):
                found[scored.trained] = (_place(record, scored, axis), y)
        return found

    return _curve(group, [points(record) for record in group.records])


def steps(group: Group, value: Callable[[Step], float], axis: str = "forwards") -> Curve | None:
    """A smoothed number of the training steps; ``None`` where no step has it."""
    every = []
    for record in group.records:
        found = [(step, value(step)) for step in record.steps]
        every.append(
            {
                step.trained: (float(step.forwards if axis == "forwards" else step.seconds), y)
                for step, y in found
                if math.isfinite(y)
            }
        )
    raw = tuple(thinned(list(every[0].values()))) if len(every) == 1 and window(len(every[0])) > 1 else ()
    return _curve(group, [_smoothed(points) for points in every], raw)


def note(name: str) -> Callable[[Step], float]:
    """The note of that name of a training step."""
    return lambda step: step.line.notes.get(name, math.nan)


def share(name: str) -> Callable[[Step], float]:
    """``changed``, ``cut`` or ``lost`` as a share of all coordinates."""
    return lambda step: getattr(step.line.moved, name) / step.line.moved.total if step.line.moved.total else math.nan


def metrics(records: Iterable[Record]) -> list[str]:
    """Names of what was scored, the loss first."""
    return list(dict.fromkeys(name for one in records for scored in one.scores for name in scored.score.numbers()))


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation where there are two values or more."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most ``POINTS`` of the points, evenly, first and last among them."""
    if len(points) <= POINTS:
        return list(points)
    return [points[round(k * (len(points) - 1) / (POINTS - 1))] for k in range(POINTS)]


def _curve(group: Group, every: Sequence[Mapping[int, Point]], raw: tuple[Point, ...] = ()) -> Curve | None:
    """Mean and spread at the steps all runs have reached."""
    common = sorted(set.intersection(*(set(points) for points in every)))
    if not common:
        return None
    middle, low, high = [], [], []
    for trained in common:
        x = statistics.fmean(points[trained][0] for points in every)
        y, spread = mean_and_spread([points[trained][1] for points in every])
        middle.append((x, y))
        if spread is not None:
            low.append((x, y - spread))
            high.append((x, y + spread))
    points, under, over = (tuple(thinned(part)) for part in (middle, low, high))
    return Curve(group.label, group.index, points, under, over, raw)


def _smoothed(points: Mapping[int, Point]) -> dict[int, Point]:
    """The moving mean over a twentieth of the points; at the ends over those there are, half of them at least."""
    keys, half = list(points), window(len(points)) // 2
    sums = [0.0]
    for _, y in points.values():
        sums.append(sums[-1] + y)
    found = {}
    for place, key in enumerate(keys):
        start, stop = max(0, place - half), min(len(keys), place + half + 1)
        found[key] = (points[key][0], (sums[stop] - sums[start]) / (stop - start))
    return found


def window(count: int) -> int:
    """Points a moving mean takes together, an odd number."""
    return max(1, count // WINDOWS) // 2 * 2 + 1


def _place(record: Record, scored: Scored, axis: str) -> float:
    return float(scored.forwards) if axis == "forwards" else record.seconds_at(scored.trained)


def _method(record: Record) -> str:
    """All a run depends on but its seed, as one text."""
    header = record.journal.header
    method = {name: value for name, value in record.method.items() if name != "seed"}
    task = {name: value for name, value in record.config.get("task", {}).items() if name != "data"}
    every = record.config.get("eval_every")
    names = header.get("names", {}).get("data")
    return json.dumps([header.get("base"), method, header.get("profile"), task, names, every], sort_keys=True)


def _label(members: Sequence[Record]) -> str:
    if len(members) == 1:
        return members[0].name
    first, last = min(record.name for record in members), max(record.name for record in members)
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    shared = first[:same].rstrip("-_./ ")
    seeds = {record.method["seed"] for record in members}
    what = "seeds" if len(seeds) == len(members) else "runs"
    return f"{shared or members[0].method['recipe']} ({len(members)} {what})"
