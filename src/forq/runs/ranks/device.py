"""The device of a rank whose machine has several."""

from __future__ import annotations

import os

import torch


def own_device() -> str:
    """A CUDA device of this rank's own where its machine has several, by LOCAL_RANK; else ``auto``."""
    count = torch.cuda.device_count()
    if count < 2:
        return "auto"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', os.environ.get('RANK', '0'))) % count}"
