"""How many answers have the desk's form, by a regular expression and nothing else.

python form.py answers.jsonl              the share, then the answers that have another form
python form.py before.jsonl after.jsonl   the shares, then the answers side by side
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

FORM = re.compile(r"Why: [^\n]+\.\nDo: [^\n]+\.\nCheck: [^\n]+\.")
"""Three lines in this order, each with its word in front and a full stop behind, and nothing else."""


def in_form(answer: str) -> bool:
    """Whether an answer has the desk's form; space around it does not count."""
    return FORM.fullmatch(answer.strip()) is not None


def read(path: Path) -> list[dict[str, str]]:
    """The rows that ``answers.py`` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def counted(path: Path) -> tuple[int, int]:
    """The number of answers in the form, and of all answers."""
    rows = read(path)
    return sum(in_form(row["answer"]) for row in rows), len(rows)


def main(names: Sequence[str]) -> None:
    """Print the shares, and the answers to look at."""
    paths = [Path(name) for name in names]
    for path in paths:
        right, rows = counted(path)
        print(f"{path}: {right} of {rows} answers in the form")
    for same in zip(*map(read, paths), strict=True):
        if len(paths) > 1 or not in_form(same[0]["answer"]):
            print(f"\n{same[0]['question']}")
            for path, row in zip(paths, same, strict=True):
                print(f"  {path.stem:<8}", row["answer"].strip().replace("\n", "\n           "))


if __name__ == "__main__":
    main(sys.argv[1:])
