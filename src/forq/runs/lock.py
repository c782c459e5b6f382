"""One writer at a time: a lock on a folder, the same on Linux, macOS and Windows."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from forq.errors import ForqError

NAME = ".lock"
"""The lock file in a run's folder. It stays there; what is locked is the open file, so a killed process frees it."""


def lock(folder: Path, error: type[ForqError], message: str) -> FileLock:
    """Hold a folder for this process, until ``release()``.

    Raises:
        ForqError: another process holds it; of the type and with the message given.
    """
    held = FileLock(folder / NAME, timeout=0, thread_local=False)
    try:
        held.acquire()
    except Timeout as held_elsewhere:
        raise error(message) from held_elsewhere
    return held
