"""Begin from the checkpoint: put the file's values back wherever an earlier run or optimizer moved a loaded model.

A journal names its base by the digest of the file, so a run that began elsewhere could not be rebuilt.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from forq.coordinates.leaf import LazyLeaf, Leaf
from forq.layers import heap
from forq.layers.leaves import CodeLeaf, ZeroLeaf
from forq.models.loaded import LoadedModel
from forq.runs.replay_leaves import leaves as filed

log = logging.getLogger("forq")


def restore_base(model: LoadedModel) -> None:
    """Read every tensor that a space may have moved from the checkpoint again, one at a time; log if some had moved.

    A model with adapters stays as it is: no run takes adapters that it did not begin itself.

    Raises:
        FormatError: the checkpoint's files cannot be read any more.
    """
    if model.adapters or not model.lent:
        return
    integers = {leaf.name: leaf for leaf in model.lent.values() if isinstance(leaf, ZeroLeaf | CodeLeaf)}
    layers = {id(leaf.layer): leaf.layer for leaf in integers.values()}
    moved = sum([layer.use_file() for layer in layers.values()])
    floats = [leaf for name, leaf in model.lent.items() if name not in integers]
    small = [leaf for leaf in floats if not isinstance(leaf, LazyLeaf)]
    moved += sum([_copied(leaf, model) for leaf in floats if isinstance(leaf, LazyLeaf)])
    listed = [(leaf.name, leaf.group, leaf.out_axis, torch.float32, None) for leaf in small]
    moved += sum([_written(leaf, own.read()) for leaf, own in zip(small, filed(listed, model.checkpoint), strict=True)])
    model.lent.clear()
    heap.trim()
    if moved:
        log.warning(
            "%s: this model had moved since it was loaded; %d of its tensors were read from the file again, because a "
            "run begins from the checkpoint",
            model.checkpoint.path,
            moved,
        )


def _written(leaf: Leaf, x: Tensor) -> bool:
    """Write the file's values into a small leaf; return whether it held others."""
    old = leaf.read()
    leaf.write(x)
    return not torch.equal(old, leaf.read())


def _copied(leaf: LazyLeaf, model: LoadedModel) -> bool:
    """Stream the file's values into a large matrix; return whether it held others."""
    flat, start, moved = leaf.storage.detach().view(-1), 0, False
    for part in model.checkpoint.parts(leaf.name):
        here, own = flat[start : start + len(part)], part.to(flat)
        moved = moved or not torch.equal(here, own)
        here.copy_(own)
        start += len(part)
    return moved
