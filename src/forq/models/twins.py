"""Tied tensors that a file stores twice, as embedding and as head: a single leaf, saved under both names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from forq.checkpoints import Checkpoint, Streamed, rows_of
from forq.models.layout import layout


def with_twins(ckpt: Checkpoint, moved: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The moved tensors, plus a second entry for each tensor that the file stores under two names."""
    left = {(info.dtype, info.shape) for name, info in ckpt.info.items() if name not in moved}
    if not any((ckpt.info[name].dtype, ckpt.info[name].shape) in left for name in moved):
        return moved  # no tensor can have a twin, so the architecture need not be built
    twins = layout(ckpt).names.twins
    names = {name: name for name in moved} | {twins[name]: name for name in moved if name in twins}
    return Streamed({written: partial(rows_of, moved, name) for written, name in names.items()})
