"""Two hundred damaged checkpoints of every format, in a process of their own; ``python -m tests.fuzz`` tries more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fuzz


@pytest.mark.parametrize("name", fuzz.NAMES)
def test_200_damaged_checkpoints_are_refused_or_load(name: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, "--count", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert told["refused"] + told["taken"] == 200
    assert told["refused"] > 40  # else the damage is done where nothing looks
