"""Make the golden journal: what law 1 makes of fixed losses. Run by hand, from a clean tree, and only for a new law.

python -m tests.golden.make
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from forq.coordinates import space as spaces
from forq.coordinates.space import Space
from forq.recipes import recipe
from forq.recipes.plan import plan
from forq.recipes.settings import settings
from forq.runs import engine
from forq.runs.journal import Line
from forq.runs.oracles.tape import Tape
from forq.scalars.losses import Losses, from_means
from forq.scalars.moves import Move, Moved
from tests.toys import Toy

HERE = Path(__file__).parent
STEPS = 12


def space() -> Space:
    """Three leaves, two files' dtypes, both layouts, a zero and a negative scale."""
    a = (torch.arange(96, dtype=torch.float32).reshape(6, 16) + 1) / 64
    b = (torch.arange(40, dtype=torch.float32).reshape(8, 5) - 3) / 128
    return Space(
        [
            Toy("layers.0.scales", a, out_axis=1),
            Toy("layers.1.scales", b, dtype=torch.bfloat16),
            Toy("layers.2.scales", a[0].clone(), dtype=torch.float32),
        ]
    )


def losses(step: int, count: int) -> tuple[float, ...]:
    """Numbers that look like losses, exact in binary."""
    return tuple(3.0 + ((step * 37 + k * 61) % 101 - 50) / 4096 - step / 64 for k in range(count))


def play() -> dict[str, Any]:
    """Digests of masters and export after every step of the default recipe on fixed losses.

    Its settings are those of a header from before `rule.checks`, so that the digests hold such journals to the law too.
    """
    header = recipe("qzo-slopes").settings.model_dump()
    del header["rule"]["checks"]
    made, moves = plan(settings(header), seed=11, steps=STEPS), space()

    def oracle(step: int, probes: Sequence[Move]) -> tuple[Losses, ...]:
        return from_means(losses(step, len(probes)))

    lines: list[Line] = []
    digests = []
    for line in engine.run(moves, oracle, made, steps=STEPS):
        lines.append(line)
        digests.append([moves.digest(), spaces.digest(moves.exported())])
    again = space()
    list(engine.run(again, Tape(lines), made, steps=STEPS))
    assert again.digest() == moves.digest() and lines[-1].moved != Moved()
    return {"law": spaces.LAW, "recipe": "qzo-slopes", "digests": digests}


def main() -> None:
    changed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    if changed:
        sys.exit(f"the tree is not clean, so nobody could say what made the golden file:\n{changed}")
    path = HERE / f"law{spaces.LAW}.json"
    path.write_text(json.dumps(play(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
