"""The geometry of a line chart: curves become paths, ranges become ticks.

The template (``page.html``) draws the chart, and the style sheet (``page.css``) colours it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from forq.report.curves import Curve, Point

WIDTH, HEIGHT = 400, 236
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 36

_DOTS = 32
"""Curves with at most this many points show each point."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A position on an axis, in pixels, and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of a curve, in pixels, and its tooltip."""

    x: float
    y: float
    description: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A curve in pixels: path data of the line, its band and the raw line, and its points."""

    index: int
    line: str
    band: str
    raw: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart ready to draw.

    Attributes:
        description: the chart in one sentence, for screen readers.
        rule: a dashed horizontal line and its label.
    """

    title: str
    caption: str
    x_label: str
    description: str
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
    """Lay out a chart; ``None`` if there is nothing to draw.

    Args:
        share: values are shares, 0 … 1, and are written in percent.
        log: use a logarithmic axis; values that are not positive are left out.
        rule: a value to mark with a dashed line, and its label; left out if it is outside the axis.
    """
    drawable = [curve for curve in curves if curve is not None and curve.points]
    if log:
        drawable = [_positive(curve) for curve in drawable]
        drawable = [curve for curve in drawable if curve.points]
    if not drawable:
        return None
    write = percent if share else brief
    heights = [y for curve in drawable for part in (curve.points, curve.low, curve.high, curve.raw) for _, y in part]
    x_high = max(x for curve in drawable for x, _ in curve.points)
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
        height = (scale(point[1]) - scale(bottom)) / (scale(top) - scale(bottom))
        return round(x, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(height, 0.0), 1.0), 1)

    drawn = tuple(_draw(curve, place, write, unit) for curve in drawable)
    marked = None
    if rule is not None and bottom <= rule[0] <= top:
        marked = Tick(place((0.0, rule[0]))[1], rule[1])
    return Chart(
        title=title,
        caption=caption,
        x_label=unit[0],
        description=f"{title} against {unit[0]}: " + "; ".join(_describe(curve, write) for curve in drawable) + ".",
        x_ticks=tuple(Tick(place((x, top))[0], brief(x / unit[1])) for x in x_values if x <= x_high * 1.001),
        y_ticks=tuple(Tick(place((0.0, y))[1], _tick(y, y_values, share, log)) for y in y_values),
        curves=drawn,
        rule=marked,
    )


def brief(value: float) -> str:
    """A number in at most four digits: 1,500 as 1.5k, 0.00031 as 3.1e-4."""
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
    """A share as text, in percent."""
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


def _describe(curve: Curve, write: Callable[[float], str]) -> str:
    return f"{curve.label} from {write(curve.points[0][1])} to {write(curve.points[-1][1])}"


def _tick(value: float, values: Sequence[float], share: bool, log: bool) -> str:
    """The label of a tick; on a linear axis all labels have the same number of digits."""
    if share:
        return percent(value)
    step = values[1] - values[0] if len(values) > 1 else 0.0
    if log or step < 1e-3 or max(map(abs, values)) >= 1000:
        return brief(value)
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _nice(
    low: float, high: float, *, grow: bool = True, least: float = -math.inf, most: float = math.inf
) -> tuple[float, float, list[float]]:
    """A range with round ends that contains both numbers, within ``least`` … ``most``, and its ticks."""
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        margin = abs(low) * 0.1 or 0.1
        low, high = low - margin, high + margin
    exact = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(exact))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= exact * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    values = [value for k in range(first, last + 1) if least <= (value := round(k * step, 12)) <= most]
    return (values[0], values[-1], values) if grow else (low, high, values)


def _decades(low: float, high: float) -> tuple[float, float, list[float]]:
    """The range of a logarithmic axis and its ticks: 1, 2, 5 per decade, or only 1 if there are many decades."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1.0, 2.0, 5.0) if math.log10(high / low) < 2 else (1.0,)
    candidates = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in factors]
    under = max((y for y in candidates if y <= low * 1.0001), default=low)
    over = min((y for y in candidates if y >= high * 0.9999 and y > under), default=high * 10)
    inside = [y for y in candidates if under <= y <= over]
    return under, over, inside[:: max(1, math.ceil(len(inside) / 7))]


def _minutes(high: float) -> tuple[list[float], tuple[str, float]]:
    """Ticks of a time axis: their values in seconds, and the unit of the labels with its length in seconds."""
    unit = ("seconds", 1.0) if high < 180 else ("minutes", 60.0) if high < 3 * 3600 else ("hours", 3600.0)
    values = _nice(0.0, high / unit[1], grow=False)[2] if high else [0.0]
    return [value * unit[1] for value in values], unit


def _positive(curve: Curve) -> Curve:
    """A curve without the points that a logarithmic axis cannot show."""

    def positive(part: tuple[Point, ...]) -> tuple[Point, ...]:
        return tuple((x, y) for x, y in part if y > 0)

    points, high = positive(curve.points), positive(curve.high)
    least = min((y for _, y in points), default=0.0)
    # Where the lower edge of the band is not positive, the band ends at the minimum of the curve.
    low = tuple((x, y if y > 0 else least) for x, y in curve.low)
    return Curve(curve.label, curve.index, points, low, high, positive(curve.raw))
