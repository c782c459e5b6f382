"""Numbers of a checkpoint must be finite: one NaN among the scales makes every loss NaN, and names no culprit."""

from __future__ import annotations

import torch
from torch import Tensor

from forq.errors import FormatError

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def holds(tensor: Tensor) -> bool:
    """Whether a tensor holds no NaN and no infinity; one pass over it, without a copy. Whole numbers never do."""
    if tensor.dtype not in _REAL or not tensor.numel():
        return True
    low, high = tensor.aminmax()  # NaN where there is one
    return bool(torch.isfinite(low)) and bool(torch.isfinite(high))


def check(name: str, tensor: Tensor) -> Tensor:
    """The tensor itself, where it holds no NaN and no infinity.

    Raises:
        FormatError: it does; the tensor is named, and how many of its values are meant.
    """
    if holds(tensor):
        return tensor
    nan, bad = int(torch.isnan(tensor).sum()), int((~torch.isfinite(tensor)).sum())
    raise FormatError(
        f"{name}: expected finite numbers, found {nan:,} NaN and {bad - nan:,} infinite among {tensor.numel():,}; no "
        "loss can be computed with them: download the checkpoint again, or make it again from its source"
    )
