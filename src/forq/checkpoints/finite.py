"""Refuse NaN and infinity in a checkpoint by tensor name; a NaN scale would make every loss NaN."""

from __future__ import annotations

import torch
from torch import Tensor

from forq.errors import FormatError

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def is_finite(tensor: Tensor) -> bool:
    """Whether all values of a tensor are finite. One pass without a copy; integer tensors always are."""
    if tensor.dtype not in _REAL or not tensor.numel():
        return True
    low, high = tensor.aminmax()  # both are NaN if the tensor holds a NaN
    return bool(torch.isfinite(low)) and bool(torch.isfinite(high))


def check(name: str, tensor: Tensor) -> Tensor:
    """Return the tensor if all its values are finite.

    Raises:
        FormatError: it holds NaN or infinity; the message names the tensor and counts both.
    """
    if is_finite(tensor):
        return tensor
    nan, bad = int(torch.isnan(tensor).sum()), int((~torch.isfinite(tensor)).sum())
    raise FormatError(
        f"{name}: expected finite numbers, found {nan:,} NaN and {bad - nan:,} infinite among {tensor.numel():,}; no "
        "loss can be computed with them: download the checkpoint again, or make it again from its source"
    )
