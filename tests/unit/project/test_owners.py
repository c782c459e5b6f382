"""The table of how far forq is from the libraries that formats belong to."""

from __future__ import annotations

from experiments.owners import summary, table


def test_comparisons_are_counted_and_the_largest_difference_is_kept() -> None:
    lines = [
        {"owner": "b", "what": "loss; nats", "difference": 2e-6, "cases": 1},
        {"owner": "a", "what": "tokens; ids", "difference": 0.0, "cases": 3348},
        {"owner": "b", "what": "loss; nats", "difference": 5e-7, "cases": 1},
    ]
    rows = summary(lines)
    assert rows == [
        {"owner": "a", "what": "tokens; ids", "cases": 3348, "difference": 0.0},
        {"owner": "b", "what": "loss; nats", "cases": 2, "difference": 2e-6},
    ]
    assert table(rows).splitlines()[2:] == ["| a | tokens; ids | 3348 | 0 |", "| b | loss; nats | 2 | 2.0e-06 |"]
