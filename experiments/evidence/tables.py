"""The honest table as Markdown, from results/evidence.jsonl: results/evidence.md.

python experiments/evidence/tables.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from cells import ROOT, Row, recorded
from page import section
from problems import PROBLEMS

HEAD = """\
# The honest table

Drawn by `experiments/evidence/tables.py` from `evidence.jsonl`, where every row stands with its command. The page
`evidence.html` has the same with curves. Change neither by hand.

Methods that tune a quantized file with forward passes only, and their rivals, on the same files at equal forward
passes. A backward pass counts as two. Every method takes batches of the same rows and saves the best of about twenty
validation scores. A learning rate is chosen on validation with seed 0, over three orders of magnitude, and beyond them
while the best lies at an end. The forward passes of that search stand beside the result. ± is one standard deviation
over the seeds. Memory is a process's peak above its imports; back-propagation holds dense float32 matrices here, so its
memory is an upper bound. Seconds are of the processor, for the whole process, on a shared machine.
"""


def document(rows: Sequence[Row]) -> str:
    found = [section(name, problem, rows) for name, problem in PROBLEMS.items()]
    return "\n".join([HEAD, *(line for one in found if one is not None for line in _problem(one))])


def _problem(problem: dict[str, Any]) -> Iterator[str]:
    yield f"## {problem['title']}\n"
    yield f"{problem['forwards']:,} forward passes. *{problem['label'].capitalize()}*. `--only {problem['name']}`\n"
    titles = ("method", "what it is", "rate", "seeds", f"test {problem['judged']}", "search", "memory, MB", "seconds")
    yield _line(titles)
    yield _line(("---", "---", "---", *["--:"] * 5))
    for row in problem["rows"]:
        name = f"**`{row['label']}`**" if row["label"] == "qzo" else f"`{row['label']}`"
        rate = f"{row['rate'] or '–'}{', so far' if row['unfinished'] else ''}"
        yield _line((name, row["says"], rate, row["seeds"], row["test"], row["search"], row["memory"], row["seconds"]))
    yield ""
    if problem["missing"]:
        yield f"Not measured yet: {', '.join(problem['missing'])}.\n"
    if problem["fewer"]:
        yield f"Fewer than {problem['seeds']} seeds so far: {', '.join(problem['fewer'])}.\n"


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    rows = recorded()
    if not rows:
        sys.exit("results/evidence.jsonl: nothing was measured yet; run experiments/evidence/run.py")
    target = ROOT / "results" / "evidence.md"
    target.write_text(document(rows), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
