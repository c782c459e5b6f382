"""The cells of the honest table: which are on record, and which are due."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from methods import METHODS, chosen
from problems import PROBLEMS
from rates import best_of, open_rates

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "results" / "evidence.jsonl"

Row = dict[str, Any]


class Cell(NamedTuple):
    """One run. The rate is None where the method has none to choose."""

    problem: str
    method: str
    rate: str | None
    seed: int

    @property
    def name(self) -> str:
        return "-".join(map(str, self))

    @property
    def activations(self) -> str:
        """What it computes in."""
        return "float" if METHODS[self.method].by == "gradients" else PROBLEMS[self.problem].activations


def recorded(path: Path | None = None) -> list[Row]:
    path = path or TARGET
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def cell_of(row: Row) -> Cell:
    return Cell(row["problem"], row["method"], row["rate"], row["seed"])


def of_table(row: Row) -> bool:
    """Whether a row was computed in the arithmetic of the table. Rows in float do not name it."""
    return row.get("activations", "float") == cell_of(row).activations


def due(only: list[str], path: Path | None = None) -> Iterator[Cell]:
    """All cells that are not on record, seed by seed; those of a search one after another."""
    for name, problem in PROBLEMS.items():
        for seed in problem.seeds:
            for method in chosen(problem.core, problem.apart):
                if only and name not in only and f"{name}:{method}" not in only:
                    continue
                spec = METHODS[method]
                if spec.by == "nothing" and seed != problem.seeds[0]:
                    continue  # the same score again
                if spec.rates and seed == problem.seeds[0]:
                    yield from _search(name, method, path)
                    continue
                rate = best_rate(name, method, recorded(path)) if spec.rates else None
                cell = Cell(name, method, rate, seed)
                searched = rate is not None or not spec.rates
                if searched and cell not in {cell_of(row) for row in recorded(path) if of_table(row)}:
                    yield cell


def _search(problem: str, method: str, path: Path | None) -> Iterator[Cell]:
    """The cells of a rate's search. Each depends on the rows of those before it."""
    offered: set[str] = set()
    while True:
        tried = tried_rates(problem, method, recorded(path))
        rates = open_rates(METHODS[method].rates, tried, PROBLEMS[problem].judged)
        rate = next((rate for rate in rates if rate not in offered), None)
        if rate is None:
            return
        offered.add(rate)
        yield Cell(problem, method, rate, PROBLEMS[problem].seeds[0])


def best_rate(problem: str, method: str, rows: list[Row]) -> str | None:
    """The rate that validated best with the first seed; None while the search goes on, or where all rates failed."""
    tried = tried_rates(problem, method, rows)
    judged = PROBLEMS[problem].judged
    if not tried or open_rates(METHODS[method].rates, tried, judged):
        return None
    best = best_of(tried, judged)
    return None if "error" in tried[best] else best


def tried_rates(problem: str, method: str, rows: list[Row]) -> dict[str, Row]:
    """The rows of the first seed, by rate."""
    cells = ((cell_of(row), row) for row in rows if of_table(row))
    first = (problem, method, PROBLEMS[problem].seeds[0])
    return {cell.rate: row for cell, row in cells if cell.rate and (cell.problem, cell.method, cell.seed) == first}
