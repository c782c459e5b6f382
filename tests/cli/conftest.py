"""Ways to call the command line."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "forq", *map(str, words)]


def environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def forq(capsys, monkeypatch) -> Callable[..., Done]:
    """The command line in this process: the same ``main``, without importing torch anew each time."""
    from forq.cli import main

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["forq", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    yield call
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def limited() -> Callable[..., Done]:
    """The command line in a process whose files may not grow beyond a size."""

    def call(*words: object, file_bytes: int) -> Done:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

        done = subprocess.run(
            command(*words),
            capture_output=True,
            text=True,
            env=environment(),
            timeout=300,
            check=False,
            preexec_fn=limit,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return call
