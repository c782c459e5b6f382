"""Whether kernels of our own can be made for a device."""

from __future__ import annotations

import importlib.util
from functools import cache


@cache
def triton_for(kind: str) -> bool:
    """Is it a kind of device Triton compiles for (``cuda``), and is Triton here? torch's builds for GPUs bring it."""
    return kind == "cuda" and importlib.util.find_spec("triton") is not None
