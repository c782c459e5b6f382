"""Commands written beside results can be run, and are the same on every machine."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def shakespeare() -> ModuleType:
    path = Path(__file__).parents[3] / "experiments" / "shakespeare.py"
    spec = importlib.util.spec_from_file_location("shakespeare", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_recorded_command_is_the_one_that_ran(shakespeare: ModuleType, tmp_path: Path, monkeypatch) -> None:
    data, work = tmp_path / "my data", tmp_path / "my data" / "work"
    ran = []

    def fake(words, **options):
        ran.append(words[1:])
        score = {when: {"loss": 1.0} for when in ("before", "after")}
        said = {"validation": score, "test": score, "forwards": 1, "seconds": 1, "peak_mb": 1}
        return subprocess.CompletedProcess(words, 0, json.dumps(said), "")

    monkeypatch.setattr(shakespeare.subprocess, "run", fake)
    job = shakespeare.tune("x", work / "base", "qzo", 3, 0, "estimator.noise=it's $HOME")
    row = shakespeare.run(job, data, work)
    monkeypatch.undo()
    shell = ["bash", "-c", f"python() {{ printf '%s\\0' \"$@\"; }}; {row['command']}"]
    said = subprocess.run(shell, env={"FORQ_DATA": str(data), "WORK": str(work)}, capture_output=True, check=True)
    assert said.stdout.decode().split("\0")[:-1] == ran[0]
    assert {"--data", "--out", "--json"} < set(ran[0]) and str(tmp_path) not in row["command"]


def test_a_run_has_the_same_folder_everywhere(shakespeare: ModuleType) -> None:
    def folder(data: Path, work: Path) -> str:
        words = shakespeare.tune("x", work / "base", "qzo", 3, 0)["words"]
        full = shakespeare.complete(words, data, work)
        return Path(full[full.index("--out") + 1]).name

    assert folder(Path("/a"), Path("/b")) == folder(Path("/c/d"), Path("/e")) == "6a4fad7a7695e4fc"


def test_a_process_that_dies_in_silence_is_recorded(shakespeare: ModuleType, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    row = shakespeare.run(shakespeare.tune("x", tmp_path, "qzo", 3, 0), tmp_path, tmp_path)
    assert row["error"] == "exit code 1, nothing said"
