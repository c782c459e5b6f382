"""Giving memory that was freed back to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def trim() -> None:
    """Let the system have what glibc keeps of freed buffers; elsewhere nothing.

    Buffers freed between others that stay leave holes glibc does not give back by itself: a model whose layers are
    read, packed anew and let go one by one was seen to hold twice its bytes.
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
