"""The honest table as one HTML file, from results/evidence.jsonl.

python experiments/evidence/page.py [--out results/evidence.html]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from cells import ROOT, Row, best_rate, recorded, tried_rates
from methods import METHODS, chosen
from problems import PROBLEMS, Problem
from rates import best_of

from forq.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, chart
from forq.report.curves import Curve


def told(rows: Sequence[Row], problem: str, method: str) -> tuple[list[Row], list[Row], bool]:
    """The rows that count, those of the search beside them, and whether that search goes on.

    Those that count are of the chosen rate, or of the best so far.
    """
    mine = [row for row in rows if (row["problem"], row["method"]) == (problem, method)]
    best, tried = best_rate(problem, method, list(rows)), tried_rates(problem, method, list(rows))
    unfinished = best is None and bool(tried)
    if unfinished:
        best = best_of(tried, PROBLEMS[problem].judged)
    counted = [row for row in mine if row["rate"] == best and "error" not in row]
    return counted, [row for row in mine if row["rate"] != best], unfinished


def spread(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):,.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def judged(problem: Problem, row: Row, when: str = "after") -> float:
    score: float = row["test"][when][problem.judged]
    return 100 * score if problem.judged == "accuracy" else score


def line(problem: Problem, name: str, method: str, rows: Sequence[Row], index: int) -> dict[str, Any] | None:
    """A line of a problem's table; None where nothing was measured."""
    counted, searched, unfinished = told(rows, name, method)
    if not counted:
        return None
    digits = 1 if problem.judged == "accuracy" else 3
    memory = [row["peak_mb"] - row["imports_mb"] for row in counted if "peak_mb" in row]
    seconds = [row["processor_seconds"] for row in counted]
    return {
        "label": method,
        "index": index,
        "says": METHODS[method].says,
        "rate": counted[0]["rate"],
        "unfinished": unfinished,
        "value": statistics.fmean(judged(problem, row) for row in counted),
        "test": spread([judged(problem, row) for row in counted], digits),
        "seeds": len(counted),
        # A run that broke off is counted in full: nobody knew that it would.
        "search": f"{sum(row.get('forwards', problem.forwards) for row in searched):,}" if searched else "none",
        "memory": f"{max(memory):,}" if memory else "–",
        "seconds": f"{statistics.median(seconds):,.0f}",
        "digests": [row["digest"] for row in counted if "digest" in row],
        "rows": counted,
    }


def curve(label: str, index: int, rows: Sequence[Row], axis: int) -> Curve | None:
    """The validation loss against forward passes (axis 0) or seconds (1): mean and spread over the seeds."""
    courses = [row["course"] for row in rows if row.get("course")]
    if not courses:
        return None
    points, low, high = [], [], []
    for places in zip(*courses, strict=False):
        x, values = statistics.fmean(place[axis] for place in places), [place[2] for place in places]
        mean, spread = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
        points.append((x, mean))
        low.append((x, mean - spread))
        high.append((x, mean + spread))
    return Curve(label, index, tuple(points), *((tuple(low), tuple(high)) if len(courses) > 1 else ()))


def section(name: str, problem: Problem, rows: Sequence[Row]) -> dict[str, Any] | None:
    """A problem's part of the page; None where nothing of it was measured."""
    methods = chosen(problem.core, problem.apart)
    lines = [line(problem, name, method, rows, index) for index, method in enumerate(methods)]
    shown = [one for one in lines if one is not None]
    if not shown:
        return None
    labels = {one["label"] for one in shown}
    shown.sort(key=lambda one: one["value"], reverse=problem.judged == "accuracy")
    rising = [one["label"] for one in shown if not _falls(one)]
    left_out = f"; not drawn, since their loss rises above its start: {', '.join(rising)}" if rising else ""
    charts: list[Chart | None] = [
        chart(
            f"Validation loss{suffix}",
            [curve(one["label"], one["index"], one["rows"], axis) for one in shown if _falls(one)],
            caption=f"the colours are those of the table; the band is one standard deviation{left_out}",
            x_label=label,
        )
        for axis, suffix, label in ((0, "", "forward passes"), (1, " over time", "seconds"))
    ]
    published = [one for one in shown if METHODS[one["label"]].form == "published"]
    before = [judged(problem, row, "before") for one in published for row in one["rows"] if "before" in row["test"]]
    digits = 1 if problem.judged == "accuracy" else 3
    return {
        "name": name,
        "title": problem.title,
        "forwards": problem.forwards,
        "judged": "accuracy, %" if problem.judged == "accuracy" else f"loss, {problem.unit}",
        "before": f"{before[0]:.{digits}f}" if before else "",
        "label": shown[0]["rows"][0]["label"],
        "missing": [f"{method}{_failed(rows, name, method)}" for method in methods if method not in labels],
        "fewer": [f"{one['label']} ({one['seeds']})" for one in shown if _fewer(problem, one)],
        "seeds": len(problem.seeds),
        "rows": shown,
        "charts": [drawn for drawn in charts if drawn is not None],
    }


def _fewer(problem: Problem, one: dict[str, Any]) -> bool:
    """Whether seeds are missing. A file that nothing tunes has the same score with all of them."""
    return METHODS[one["label"]].by != "nothing" and one["seeds"] < len(problem.seeds)


def _failed(rows: Sequence[Row], problem: str, method: str) -> str:
    """Why nothing of a method is shown, if it was tried."""
    mine = [row["error"] for row in rows if (row["problem"], row["method"]) == (problem, method) and "error" in row]
    return f" (failed: {mine[0]:.80})" if mine else ""


def _falls(one: dict[str, Any]) -> bool:
    """Whether a curve stays near its start or below: one that diverges would flatten all others."""
    courses = [row["course"] for row in one["rows"] if row.get("course")]
    return all(place[2] <= 1.1 * course[0][2] for course in courses for place in course)


def page(rows: Sequence[Row]) -> str:
    places = [str(Path(__file__).parent), str(files("forq") / "report")]
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(places),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found = [section(name, problem, rows) for name, problem in PROBLEMS.items()]
    return env.get_template("evidence.html").render(
        problems=[one for one in found if one is not None],
        date=datetime.now(UTC).date().isoformat(),
        box={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "evidence.html")
    args = parser.parse_args()
    rows = recorded()
    if not rows:
        sys.exit("results/evidence.jsonl: nothing was measured yet; run experiments/evidence/run.py")
    args.out.write_text(page(rows), encoding="utf-8")
    print(args.out)


if __name__ == "__main__":
    main()
