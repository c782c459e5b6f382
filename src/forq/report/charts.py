"""The geometry of a line chart: curves to paths, ranges to ticks. The template draws it, the style colours it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from forq.report.curves import Curve, Point

WIDTH, HEIGHT = 400, 236
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 36

_DOTS = 32
"""Curves of no more points than this show each of them."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis, in pixels, and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of a curve in pixels, and what is said of it."""

    x: float
    y: float
    says: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A curve in pixels: path data of the line, of the band around it and of the raw line, and its points."""

    index: int
    line: str
    band: str
    raw: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart ready to draw.

    Attributes:
        says: the chart in a sentence, for those who cannot see it.
        rule: height of a dashed line, and what it marks.
    """

    title: str
    caption: str
    x_label: str
    says: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Drawn, ...]
    rule: Tick | None


def chart(
    title: str,
    curves: Iterable[Curve | None],
    *,
    caption: str,
    x_label: str = "forward passes",
    share: bool = False,
    log: bool = False,
    rule: tuple[float, str] | None = None,
) -> Chart | None:
    """Lay out a chart; ``None`` where there is nothing to draw.

    Args:
        share: heights are shares, 0 … 1, and written in percent.
        log: heights on a logarithmic axis; what is not positive is left out.
        rule: a height to mark by a dashed line, and the mark's name; left out where it lies far off the curves.
    """
    kept = [curve for curve in curves if curve is not None and curve.points]
    if log:
        kept = [_positive(curve) for curve in kept]
        kept = [curve for curve in kept if curve.points]
    if not kept:
        return None
    write = percent if share else brief
    heights = [y for curve in kept for part in (curve.points, curve.low, curve.high, curve.raw) for _, y in part]
    x_high = max(x for curve in kept for x, _ in curve.points)
    bottom, top = min(heights), max(heights)
    if log:
        bottom, top, y_values = _decades(bottom, top)
    else:
        bottom, top, y_values = _nice(bottom, top, most=1.0 if share else math.inf, least=0.0 if share else -math.inf)
    x_values, unit = (
        _minutes(x_high) if x_label == "seconds" else (_nice(0.0, x_high, grow=False)[2], ("forward passes", 1.0))
    )
    scale = (lambda y: math.log10(y)) if log else (lambda y: y)

    def place(point: Point) -> Point:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (point[0] / x_high if x_high else 0.0)
        up = (scale(point[1]) - scale(bottom)) / (scale(top) - scale(bottom))
        return round(x, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(up, 0.0), 1.0), 1)

    drawn = tuple(_draw(curve, place, write, unit) for curve in kept)
    marked = None
    if rule is not None and bottom <= rule[0] <= top:
        marked = Tick(place((0.0, rule[0]))[1], rule[1])
    return Chart(
        title=title,
        caption=caption,
        x_label=unit[0],
        says=f"{title} against {unit[0]}: " + "; ".join(_says(curve, write) for curve in kept) + ".",
        x_ticks=tuple(Tick(place((x, top))[0], brief(x / unit[1])) for x in x_values if x <= x_high * 1.001),
        y_ticks=tuple(Tick(place((0.0, y))[1], _tick(y, y_values, share, log)) for y in y_values),
        curves=drawn,
        rule=marked,
    )


def brief(value: float) -> str:
    """A number in four digits or fewer: 1,500 as 1.5k, 0.00031 as 3.1e-4."""
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-3 or size >= 1e9:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    for factor, suffix in ((1e6, "M"), (1e3, "k")):
        if size >= factor:
            return f"{value / factor:.4g}{suffix}"
    return f"{value:.4g}"


def percent(value: float) -> str:
    """A share as people read it."""
    return f"{100 * value:.3g} %"


def _draw(
    curve: Curve, place: Callable[[Point], Point], write: Callable[[float], str], unit: tuple[str, float]
) -> Drawn:
    band = ""
    if curve.low:
        around = [*map(place, curve.high), *map(place, reversed(curve.low))]
        band = f"{_path(around)}Z"
    dots: tuple[Dot, ...] = ()
    if len(curve.points) <= _DOTS and not curve.raw:
        dots = tuple(
            Dot(*place(point), f"{curve.label}: {write(point[1])} at {brief(point[0] / unit[1])} {unit[0]}")
            for point in curve.points
        )
    raw = _path([place(point) for point in curve.raw]) if len(curve.raw) > 1 else ""
    return Drawn(curve.index, _path([place(point) for point in curve.points]), band, raw, dots)


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _says(curve: Curve, write: Callable[[float], str]) -> str:
    return f"{curve.label} from {write(curve.points[0][1])} to {write(curve.points[-1][1])}"


def _tick(value: float, values: Sequence[float], share: bool, log: bool) -> str:
    """The label of a height; those of a linear axis share their digits, so that a column of them can be read."""
    if share:
        return percent(value)
    step = values[1] - values[0] if len(values) > 1 else 0.0
    if log or step < 1e-3 or max(map(abs, values)) >= 1000:
        return brief(value)
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _nice(
    low: float, high: float, *, grow: bool = True, least: float = -math.inf, most: float = math.inf
) -> tuple[float, float, list[float]]:
    """A range of round ends that holds both numbers and no more than ``least`` to ``most``, and round numbers in it."""
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = abs(low) * 0.1 or 0.1
        low, high = low - room, high + room
    exact = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(exact))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= exact * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    values = [value for k in range(first, last + 1) if least <= (value := round(k * step, 12)) <= most]
    return (values[0], values[-1], values) if grow else (low, high, values)


def _decades(low: float, high: float) -> tuple[float, float, list[float]]:
    """A range of a logarithmic axis, and its round numbers: 1, 2, 5 of each decade, or of many decades only 1."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1.0, 2.0, 5.0) if math.log10(high / low) < 2 else (1.0,)
    all_of = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in factors]
    under = max((y for y in all_of if y <= low * 1.0001), default=low)
    over = min((y for y in all_of if y >= high * 0.9999 and y > under), default=high * 10)
    inside = [y for y in all_of if under <= y <= over]
    return under, over, inside[:: max(1, math.ceil(len(inside) / 7))]


def _minutes(high: float) -> tuple[list[float], tuple[str, float]]:
    """Ticks of a time axis in the unit that suits its length: values in seconds, and the unit with its seconds."""
    unit = ("seconds", 1.0) if high < 180 else ("minutes", 60.0) if high < 3 * 3600 else ("hours", 3600.0)
    values = _nice(0.0, high / unit[1], grow=False)[2] if high else [0.0]
    return [value * unit[1] for value in values], unit


def _positive(curve: Curve) -> Curve:
    def only(part: tuple[Point, ...]) -> tuple[Point, ...]:
        return tuple((x, y) for x, y in part if y > 0)

    points, high = only(curve.points), only(curve.high)
    least = min((y for _, y in points), default=0.0)
    # A band whose lower edge passes zero ends at the least of the curve: a logarithmic axis has no place for it.
    low = tuple((x, y if y > 0 else least) for x, y in curve.low)
    return Curve(curve.label, curve.index, points, low, high, only(curve.raw))
