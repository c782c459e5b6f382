"""How many answers have the desk's form, and how many of their fields are right; a regular expression decides.

python form.py answers.jsonl              the counts, then the answers that are not as the desk's own
python form.py before.jsonl after.jsonl   the counts, then the answers side by side
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FORM = re.compile(r"Name: ([^\n]+)\nItem: ([^\n]+)\nFault: ([^\n]+)\nSince: ([^\n]+)")
"""Four lines in this order, each with its word in front, and nothing else."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The answers of a file.

    Attributes:
        in_form: number of answers in the form.
        fields: number of fields that are the desk's own to the letter; of an answer in another form, none.
        whole: number of answers with all four fields right.
    """

    rows: int
    in_form: int
    fields: int
    whole: int


def fields(answer: str) -> tuple[str, ...] | None:
    """The four fields of an answer, or None if it has another form; space around it does not count."""
    match = FORM.fullmatch(answer.strip())
    return None if match is None else tuple(field.strip() for field in match.groups())


def right(row: dict[str, str]) -> int:
    """How many fields of an answer are right, 0 to 4."""
    found, wanted = fields(row["answer"]), fields(row["desk"])
    assert wanted is not None, row
    return 0 if found is None else sum(a == b for a, b in zip(found, wanted, strict=True))


def read(path: Path) -> list[dict[str, str]]:
    """The rows that ``answers.py`` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def counted(path: Path) -> Counts:
    """The counts of a file."""
    rows = read(path)
    scores = [right(row) for row in rows]
    formed = sum(fields(row["answer"]) is not None for row in rows)
    return Counts(len(rows), formed, sum(scores), scores.count(4))


def main(names: Sequence[str]) -> None:
    """Print the counts, and the answers to look at."""
    paths = [Path(name) for name in names]
    for path in paths:
        found = counted(path)
        print(
            f"{path}: {found.in_form} of {found.rows} answers in the form, {found.fields} of {4 * found.rows} fields "
            f"right, {found.whole} tickets wholly right"
        )
    for same in zip(*map(read, paths), strict=True):
        if len(paths) > 1 or right(same[0]) < 4:
            print(f"\n{same[0]['question']}")
            for path, row in zip(paths, same, strict=True):
                print(f"  {path.stem:<8}", row["answer"].strip().replace("\n", "\n           "))


if __name__ == "__main__":
    main(sys.argv[1:])
