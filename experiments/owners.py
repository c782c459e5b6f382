"""How far forq is from the libraries that formats belong to: what the oracle tests compared, as a table.

The tests append a line for every comparison (the fixture ``compared`` of tests/oracles/conftest.py):

    make owners        # all of them; or, by hand:
    FORQ_COMPARED=$PWD/build/compared.jsonl python -m pytest -m oracle
    python -m experiments.owners build/compared.jsonl --out results/owners.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def summary(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for every owner and kind of comparison: how many cases, and the largest difference."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        key = (line["owner"], line["what"])
        row = rows.setdefault(key, {"owner": key[0], "what": key[1], "cases": 0, "difference": 0.0})
        row["cases"] += line["cases"]
        row["difference"] = max(row["difference"], line["difference"])
    return [rows[key] for key in sorted(rows)]


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    cells = [f"| {row['owner']} | {row['what']} | {row['cases']} | {_short(row['difference'])} |" for row in rows]
    return "\n".join(["| owner | what was compared | cases | largest difference |", "|---|---|--:|--:|", *cells])


def _short(difference: float) -> str:
    return "0" if difference == 0 else f"{difference:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("compared", type=Path, help="lines that the oracle tests appended")
    parser.add_argument("--out", type=Path, help="where the rows go, as JSON")
    args = parser.parse_args()
    rows = summary(map(json.loads, args.compared.read_text().splitlines()))
    if args.out is not None:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
