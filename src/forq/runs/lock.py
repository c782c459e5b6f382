"""A lock on a folder, so that only one process writes it; works on Linux, macOS and Windows."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from forq.errors import ForqError

NAME = ".lock"
"""The lock file in a run's folder. The file stays; the lock belongs to the open file, so a killed process frees it."""


def lock(folder: Path, error: type[ForqError], message: str) -> FileLock:
    """Lock a folder for this process, until ``release()``.

    Raises:
        ForqError: another process has locked it; the error has the given type and message.
    """
    folder_lock = FileLock(folder / NAME, timeout=0, thread_local=False)
    try:
        folder_lock.acquire()
    except Timeout as timeout:
        raise error(message) from timeout
    return folder_lock
