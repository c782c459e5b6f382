"""Compile a little C once for each machine and user, and load it.

A library lies in the user's cache (``$XDG_CACHE_HOME/forq``, else ``~/.cache/forq``), under the hash of its source, of
the command that made it and of the processor's kind, so that neither another version nor another processor's
instructions are ever loaded. A file that another user could have written is not loaded. Where there is no compiler, or
no place for the file, callers compute the same numbers without it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

_FLAGS = ("-O3", "-ffp-contract=off", "-shared", "-fPIC")
_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 120
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def compiled(source: Path, instructions: tuple[str, ...] = ()) -> ctypes.CDLL | str:
    """The library of a source, or why there is none.

    Args:
        instructions: flags for instructions that this processor is known to have.
    """
    if sys.platform == "win32":
        return "a C compiler of Linux or macOS is needed, found Windows"
    try:
        command = _command(instructions)
        if command is None:
            return f"a C compiler is needed ($CC, {', '.join(_COMPILERS)}), found none; install gcc or clang"
        file = _folder() / f"{source.stem}-{_key(source, command)}.so"
        if not file.exists():
            _compile(command, source, file)
        return _unsafe(file.parent) or _unsafe(file) or ctypes.CDLL(str(file))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["it says nothing"]
        return f"{error.cmd[0]} cannot compile {source.name}: {lines[0][:200]}"
    except (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        # A container may have no home folder (RuntimeError); loading a model must not fail for want of a cache.
        return f"{source.name} cannot be compiled or loaded: {error}"


def _command(instructions: tuple[str, ...]) -> list[str] | None:
    """The compiler's command line but for the files."""
    named = os.environ.get("CC")
    try:
        words = shlex.split(named or "")
    except ValueError as error:
        raise ValueError(f"expected a command in $CC, found {named!r}: {error}") from error
    compiler = words if named else [path for name in _COMPILERS if (path := shutil.which(name))][:1]
    if not compiler:
        return None
    return [*compiler, *_FLAGS, *instructions]


def _key(source: Path, command: list[str]) -> str:
    """Names what is compiled: a home may be shared by machines of several kinds."""
    words = [*command, sys.platform, platform.machine()]
    return hashlib.sha256(source.read_bytes() + "\0".join(words).encode()).hexdigest()[:32]


def _folder() -> Path:
    """The folder of the cache, where only this user writes: others may have made it with the umask's mode."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "forq"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid == os.getuid() and found.st_mode & _OTHERS:
        folder.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
    return folder


def _compile(command: list[str], source: Path, file: Path) -> None:
    """Compile beside the target and move it there, so that two processes may do it at once."""
    with tempfile.TemporaryDirectory(prefix="build-", dir=file.parent) as folder:
        made = Path(folder) / file.name
        words = [*command, str(source), "-o", str(made)]
        subprocess.run(words, check=True, capture_output=True, text=True, errors="replace", timeout=_SECONDS)
        made.chmod(0o755)  # a linker leaves the umask's mode, which may let a group write
        made.replace(file)


def _unsafe(path: Path) -> str | None:
    """Why a file or folder is not trusted, or None where nobody but this user, or root, can have written it."""
    found = path.stat()
    if found.st_uid in (0, os.getuid()) and not found.st_mode & _OTHERS:
        return None
    return (
        f"{path} could have been written by another user (mode {stat.S_IMODE(found.st_mode):o}, owner "
        f"{found.st_uid}); remove it, or name another folder in $XDG_CACHE_HOME"
    )
