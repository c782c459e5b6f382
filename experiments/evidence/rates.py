"""Which learning rates are tried for a method: its range, and beyond an end of it while the best lies there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

BEYOND = 3
"""How many rates, each a tenth or ten times the last, are tried beyond either end of the range."""


def open_rates(rates: Sequence[str], tried: Mapping[str, Row], judged: str) -> list[str]:
    """The rates to try next, smallest first; empty: the search is over.

    First come those of the range. None is tried above a rate that only did harm. Then, while the best of them has no
    neighbour on one side, that neighbour is tried: a best at the end of a range says that the range was the wrong one.
    """
    limit = min((float(rate) for rate, row in tried.items() if harmful(row)), default=float("inf"))
    due = [rate for rate in sorted(rates, key=float) if rate not in tried and float(rate) < limit]
    if due or not tried:
        return due
    best, known = best_of(tried, judged), sorted(tried, key=float)
    lowest, highest = (float(end(rates, key=float)) for end in (min, max))
    if best == known[0] and float(best) > lowest / 10 ** (BEYOND - 0.5):
        return [_written(float(best) / 10)]
    if best == known[-1] and not harmful(tried[best]) and float(best) < highest * 10 ** (BEYOND - 0.5):
        return [_written(float(best) * 10)]
    return []


def best_of(tried: Mapping[str, Row], judged: str) -> str:
    """The rate that validated best, by what the table compares; the smallest of equals. One that failed is last."""

    def rank(rate: str) -> tuple[float, float, float]:
        if "error" in tried[rate]:
            return float("inf"), 0.0, float(rate)
        score = tried[rate]["validation"]["after"]
        return -score["accuracy"] if judged == "accuracy" else 0.0, score["loss"], float(rate)

    return min(tried, key=rank)


def harmful(row: Row) -> bool:
    """Whether a run failed or went astray: it never validated better than at its start, or ended at twice the loss.

    The second of these may still have an accuracy that is better by chance.
    """
    if "error" in row:
        return True
    score, first, last = row["validation"], row["course"][0][2], row["course"][-1][2]
    return bool(last > 2 * first or (last > first and score["after"] == score["before"]))


def _written(rate: float) -> str:
    digits, _, power = f"{rate:.0e}".partition("e")
    return f"{digits}e{int(power)}"
