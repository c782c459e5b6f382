"""Whether kernels of our own can be made for a device, and what this processor can do."""

from __future__ import annotations

import importlib.util
from functools import cache


@cache
def triton_for(kind: str) -> bool:
    """Is it a kind of device Triton compiles for (``cuda``), and is Triton here? torch's builds for GPUs bring it."""
    return kind == "cuda" and importlib.util.find_spec("triton") is not None


def cpu_has(*names: str) -> bool | None:
    """Whether this processor has one of these instructions, by torch's names; None where torch is too old to say."""
    import torch  # not at the top: help and listings do without it

    if not hasattr(torch.cpu, "get_capabilities"):
        return None
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in names)
