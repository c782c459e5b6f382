"""Giving memory that was freed back to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def trim() -> None:
    """Return the memory of freed buffers that glibc keeps to the system; a no-op elsewhere.

    glibc does not return holes between buffers that stay: a model whose layers are read, packed and freed one by one
    held twice its bytes.
    """
    release = _release()
    if release is not None:
        release(0)


@cache
def _release() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    return found
