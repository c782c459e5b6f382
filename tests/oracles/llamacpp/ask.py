"""Ask llama.cpp, in its environment, about GGUF files."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PYTHON = HERE.parents[2] / ".venv-llamacpp" / "bin" / "python"

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-llamacpp: build it with tests/oracles/llamacpp/setup.sh"),
]
"""Marks of every test that asks."""


def call(script: str, *args: object, stdin: str = "") -> str:
    """What a script of this folder prints in llama.cpp's environment."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [str(PYTHON), str(HERE / script), *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=900, env=clean)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def score(files: Iterable[Path], **asked: Any) -> dict[Path, dict[str, Any]]:
    """What ``score.py`` says of each file."""
    stdin = json.dumps({"files": [str(file) for file in files], **asked})
    lines = call("score.py", stdin=stdin).splitlines()
    answers = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    return {Path(answer["file"]): answer for answer in answers}
