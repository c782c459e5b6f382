"""What every oracle test can do: note how far forq was from the owner of a format, for ``make owners``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

COMPARED = "FORQ_COMPARED"
"""Names the file that comparisons are appended to; without it nothing is written."""


@pytest.fixture(scope="session")
def compared() -> Callable[..., None]:
    """``compared(owner, what, difference, cases=1)`` notes a comparison.

    Args of the function:
        owner: the library that decides, as its package index calls it.
        what: what was compared and in which unit, as a column of the table says it: ``loss, nats``.
        difference: the largest that was seen, a float or a tensor of one element; 0 where all is equal.
        cases: how many were compared at once.
    """
    file = os.environ.get(COMPARED)

    def note(owner: str, what: str, difference: float, cases: int = 1) -> None:
        if file is not None:
            line = json.dumps({"owner": owner, "what": what, "difference": float(difference), "cases": cases})
            with Path(file).open("a") as stream:  # one short write a line: processes may share the file
                stream.write(line + "\n")

    return note
