"""Ties whose file stores the tensor twice, as embedding and as head: one leaf, written under both names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from forq.checkpoints import Checkpoint, Streamed
from forq.models.layout import layout


def with_twins(ckpt: Checkpoint, moved: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """What moved, and beside each tensor that the file stores twice the same under its other name."""
    left = {(info.dtype, info.shape) for name, info in ckpt.info.items() if name not in moved}
    if not any((ckpt.info[name].dtype, ckpt.info[name].shape) in left for name in moved):
        return moved  # none can have a twin, and the architecture need not be built to see it
    twins = layout(ckpt).names.twins
    names = {name: name for name in moved} | {twins[name]: name for name in moved if name in twins}
    return Streamed({written: partial(moved.__getitem__, name) for written, name in names.items()})
