"""Ray's actors in place of torchrun's ranks: the same bytes, also where an actor is killed on the way.

Build the environment with ``tests/oracles/ray/setup.sh``.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import forq

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-ray" / "bin" / "python"


@pytest.mark.oracle
def test_a_run_on_ray_actors_is_the_run_of_one_process(base, text, tmp_path):
    if not PYTHON.exists():
        pytest.skip("no .venv-ray: tests/oracles/ray/setup.sh builds it")
    settings = {"task": {"max_length": 32, "validation_rows": 16, "test_rows": 16}}
    one = forq.tune(base, "text", text, recipe="qzo-slopes", steps=12, out=tmp_path / "one", settings=settings)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "RAY_DEDUP_LOGS": "0"}
    words = [PYTHON, ROOT / "examples" / "ray_oracle.py", base, text, tmp_path / "ray", "12", "9"]
    done = subprocess.run(map(str, words), env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "an actor is gone; a new one replays 9 steps" in done.stdout
    for name in ("journal.jsonl", "checkpoint/model.safetensors"):
        assert (one.folder / name).read_bytes() == (tmp_path / "ray" / name).read_bytes()
