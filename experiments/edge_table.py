"""The rows of experiments/edge.py as a table."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from edge_images import SHIFTS, SIZES

TARGET = Path(__file__).parents[1] / "results" / "edge.jsonl"
SEEDS = (0, 1, 2)
NAMES = {"noise": "Gaussian noise", "blur": "blur, disk of radius", "contrast": "contrast ×"}
Row = dict[str, Any]

COLUMNS = (
    ("before", "scales", "shifted", SIZES[1], "qdq"),
    ("scales, 200 images", "scales", "after", SIZES[0], "qdq"),
    ("scales, 1,000", "scales", "after", SIZES[1], "qdq"),
    ("the latter on clean images", "scales", "clean_after", SIZES[1], "qdq"),
    ("back-propagation, 200", "ceiling", "after", SIZES[0], "qdq"),
    ("back-propagation, 1,000", "ceiling", "after", SIZES[1], "qdq"),
    ("the latter on clean images", "ceiling", "clean_after", SIZES[1], "qdq"),
    ("`zoqo` on codes, 200", "codes", "after", SIZES[0], "qdq"),
    ("codes, 1,000", "codes", "after", SIZES[1], "qdq"),
    ("operator form: scales, 1,000", "scales", "after", SIZES[1], "operators"),
)
"""Title, what was done, what was measured, images, form of the file."""


def recorded() -> list[Row]:
    return [json.loads(line) for line in TARGET.read_text().splitlines()] if TARGET.is_file() else []


def table() -> str:
    """Percentages: mean ± standard deviation over the seeds, with their number in brackets where some are missing."""
    found = recorded()
    lines = [
        "| " + " | ".join(["shift", *(title for title, *_ in COLUMNS)]) + " |",
        "|---" + "|--:" * len(COLUMNS) + "|",
    ]
    for kind, sizes in SHIFTS.items():
        for size in sizes:
            cells = []
            for _, what, field, images, form in COLUMNS:
                cell = {"what": what, "form": form, "shift": kind, "size": size, "images": images}
                values = [100 * row[field] for row in found if cell.items() <= row.items()]
                cells.append(spread(values))
            lines.append(f"| {NAMES[kind]} {size:g} | " + " | ".join(cells) + " |")
    others = [row for row in found if row["what"] in ("clean", "time")]
    return "\n".join([*lines, "", *map(json.dumps, others)])


def spread(values: list[float]) -> str:
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.1f}"
    if len(set(values)) > 1:
        mean += f" ± {statistics.stdev(values):.1f}"
    return mean if len(values) == len(SEEDS) else f"{mean} ({len(values)})"
