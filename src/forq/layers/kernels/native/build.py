"""Compile rows.c once for each machine and user, and load it.

The library lies in the user's cache (``$XDG_CACHE_HOME/forq``, else ``~/.cache/forq``), under the hash of its source
and of the command that made it, so that neither another version nor another processor's instructions are ever loaded. A
file that another user could have written is not loaded. Where there is no compiler the reference kernel computes.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_name("rows.c")
_FLAGS = ("-O3", "-ffp-contract=off", "-shared", "-fPIC")
_COMPILERS = ("cc", "gcc", "clang")
_INSTRUCTIONS = {"AVX2": ("-mavx2",), "AVX512": ("-mavx2",)}
"""Flags by what torch says the processor can do; others are compiled for the least of their kind."""
_SECONDS = 120


@cache
def missing() -> str | None:
    """Why the kernel cannot be used on this machine at all, or None."""
    built = _built()
    return built if isinstance(built, str) else None


def library() -> ctypes.CDLL:
    """The compiled functions; only where :func:`missing` is None."""
    built = _built()
    assert isinstance(built, ctypes.CDLL)
    return built


@cache
def _built() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    if sys.platform == "win32":
        return "a C compiler of Linux or macOS is needed, found Windows"
    command = _command()
    if command is None:
        return f"a C compiler is needed ($CC, {', '.join(_COMPILERS)}), found none; install gcc or clang"
    key = hashlib.sha256(_SOURCE.read_bytes() + "\0".join([*command, sys.platform]).encode()).hexdigest()[:32]
    try:
        file = _folder() / f"rows-{key}.so"
        if not file.exists():
            _compile(command, file)
        if not _ours(file):
            return f"{file} could have been written by another user; remove it"
        return ctypes.CDLL(str(file))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["it says nothing"]
        return f"{command[0]} cannot compile {_SOURCE.name}: {lines[0][:200]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{_SOURCE.name} cannot be compiled or loaded: {error}"


def _command() -> list[str] | None:
    """The compiler's command line but for the files."""
    named = os.environ.get("CC")
    compiler = shlex.split(named) if named else [path for name in _COMPILERS if (path := shutil.which(name))][:1]
    if not compiler:
        return None
    return [*compiler, *_FLAGS, *_INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), ())]


def _folder() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "forq"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _compile(command: list[str], file: Path) -> None:
    """Compile beside the target and move it there, so that two processes may do it at once."""
    with tempfile.TemporaryDirectory(prefix="build-", dir=file.parent) as folder:
        made = Path(folder) / file.name
        words = [*command, str(_SOURCE), "-o", str(made)]
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=_SECONDS)
        made.replace(file)


def _ours(file: Path) -> bool:
    """Whether nobody but this user, or root, can have written a file."""
    return all(
        (found := path.stat()).st_uid in (0, os.getuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        for path in (file, file.parent)
    )
