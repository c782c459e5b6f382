"""The compiled functions of rows.c and products.c.

Where there is no compiler, the reference kernel computes, and torch multiplies.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path

import torch

from forq.compiler import compiled
from forq.devices import cpu_has

_INSTRUCTIONS = {"AVX2": ("-mavx2",), "AVX512": ("-mavx2",)}
"""Flags of rows.c by what torch says the processor can do; others are compiled for the least of their kind."""
_AMX = ("-mavx512f", "-mavx512bf16", "-mamx-tile", "-mamx-bf16")


@cache
def missing() -> str | None:
    """Why the kernel cannot be used on this machine at all, or None."""
    built = _rows()
    return built if isinstance(built, str) else None


def library() -> ctypes.CDLL:
    """The compiled functions of rows.c; only where :func:`missing` is None."""
    built = _rows()
    assert isinstance(built, ctypes.CDLL)
    return built


@cache
def products() -> ctypes.CDLL | str | None:
    """The compiled function of products.c, or why there is none; None where this machine has no AMX."""
    if sys.platform != "linux" or not cpu_has("amx_bf16"):
        return None
    built = compiled(Path(__file__).with_name("products.c"), _AMX)
    if isinstance(built, str):
        return built
    return built if built.ready() else "Linux does not let this process use AMX"


@cache
def _rows() -> ctypes.CDLL | str:
    instructions = _INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), ())
    return compiled(Path(__file__).with_name("rows.c"), instructions)
