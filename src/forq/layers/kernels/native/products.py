"""Products in bfloat16 by the compiled function, on as many threads as torch has."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ctypes import CDLL, c_ssize_t, c_void_p
from functools import cache

import torch
from torch import Tensor

from forq.layers.kernels.native.build import products

TOKENS, INPUTS, OUTPUTS = 16, 32, 32
"""Tokens and inputs come in multiples of these; outputs are computed so many at a time."""


def able(columns: int) -> bool:
    """Whether this machine multiplies rows of so many inputs."""
    return columns % INPUTS == 0 and not isinstance(products(), str | None)


def multiply(x: Tensor, w: Tensor, y: Tensor) -> None:
    """``y = x · wᵀ``, w rounded to bfloat16, sums in float32.

    Args:
        x: bfloat16 (tokens, in), contiguous, tokens a multiple of 16 and in of 32.
        w: float32 (out, in), contiguous.
        y: float32 (tokens, out), to be written; rows may lie further apart.

    Raises:
        RuntimeError: a tensor is of another dtype, shape or layout: C reads as many numbers as it is told.
    """
    (tokens, columns), rows = x.shape, len(w)
    fits = x.dtype == torch.bfloat16 and x.is_contiguous() and not tokens % TOKENS and not columns % INPUTS
    fits &= w.dtype == torch.float32 and w.is_contiguous() and w.shape[1] == columns
    fits &= y.dtype == torch.float32 and y.shape == (tokens, rows) and y.stride(1) == 1
    if not fits or any(tensor.device.type != "cpu" for tensor in (x, w, y)):
        found = ", ".join(f"{tensor.dtype} {tuple(tensor.shape)} by {tensor.stride()}" for tensor in (x, w, y))
        raise RuntimeError(f"native kernel: expected bfloat16 x · float32 wᵀ = float32 y side by side, found {found}")
    threads = min(torch.get_num_threads(), -(-rows // OUTPUTS))
    if threads == 1:
        _part(x, w, y)
        return
    share = -(-rows // threads // OUTPUTS) * OUTPUTS
    starts = range(0, rows, share)
    list(_pool(threads).map(lambda at: _part(x, w[at : at + share], y[:, at : at + share]), starts))


def _part(x: Tensor, w: Tensor, y: Tensor) -> None:
    library = products()
    assert isinstance(library, CDLL)
    panels = torch.empty(OUTPUTS * w.shape[1], dtype=torch.bfloat16)
    places = (c_void_p(tensor.data_ptr()) for tensor in (x, w, panels, y))
    library.product(*places, *map(c_ssize_t, (len(x), len(w), w.shape[1], y.stride(0))))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="forq-product")
