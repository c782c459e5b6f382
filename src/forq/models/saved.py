"""Save what a run moved: the tuned checkpoint and the adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from forq.checkpoints import Checkpoint, Relaid, Saved, Streamed, rows_of
from forq.checkpoints.patch import fit
from forq.checkpoints.replace import check_destination, replace_folder
from forq.formats import recognised
from forq.layers.lora import Adapter
from forq.models.adapters import peft
from forq.models.convert.rewrite import Piece, rewrite
from forq.models.convert.rewrite import planned as plan_of
from forq.models.twins import with_twins


def save(
    base: Checkpoint, adapters: Sequence[Adapter], tensors: Mapping[str, Tensor], checkpoint: Path, adapter: Path
) -> None:
    """Write the checkpoint if a tensor of it moved, and the adapters if there are any.

    Each folder is written whole or not at all.

    Args:
        tensors: moved tensors by name, as the files hold them. They are read one at a time, some of
            them twice.

    Raises:
        ConfigError: a folder cannot be written.
    """
    own = Streamed({name: partial(rows_of, tensors, name) for name in tensors if name in base.info})
    if own:
        write(base, with_twins(base, own), checkpoint, overwrite=True)
    if adapters:
        peft.write(adapter, base, adapters, tensors)


def write(base: Checkpoint, tensors: Mapping[str, Tensor], folder: Path, *, overwrite: bool = False) -> Saved:
    """Write a checkpoint with moved tensors, in its own format.

    Args:
        tensors: moved tensors by name; continuous tensors in float32 or in the file's dtype.

    Raises:
        FormatError: the checkpoint has no tensor of that name, or the tensor does not fit its
            place.
        ConfigError: the folder exists, overlaps the original, or cannot be written.
    """
    plan = planned(base, tensors)
    if plan.patches:
        return base.save_patched(folder, plan.tensors, overwrite=overwrite)
    # The folder is rewritten: other tensors keep their bytes, and other files are copied.
    names, pieces, nbytes, rounding = sorted(plan.tensors), [], 0, 0.0
    for name in names:
        # Each tensor is made twice: offsets in a file must be known before its bytes, and no tensor stays in memory.
        made, error = _fitted(base, name, plan.tensors[name])
        nbytes, rounding = nbytes + made.nbytes, max(rounding, error)
        pieces.append(Piece((name,), plan_of({name: made}), partial(_made, base, name, plan.tensors)))
    pieces += [Piece((name,), {}, dict) for name in sorted(plan.gone)]
    check_destination(base.path, folder, overwrite)
    replace_folder(folder, lambda fresh: rewrite(base, fresh, pieces, plan.config or base.config))
    return Saved(folder, tuple(names), nbytes, rounding)


def planned(base: Checkpoint, tensors: Mapping[str, Tensor]) -> Relaid:
    """What :func:`write` writes: the given tensors, or the format's own arrangement of them."""
    form = recognised(base)
    return Relaid(tensors) if form is None else form.relaid(base, tensors)


def _made(base: Checkpoint, name: str, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {name: _fitted(base, name, tensors[name])[0]}


def _fitted(base: Checkpoint, name: str, tensor: Tensor) -> tuple[Tensor, float]:
    """A tensor in the file's dtype if it fits, else unchanged; and its rounding error."""
    info = base.info[name]
    if tuple(tensor.shape) == info.shape and (info.dtype.is_floating_point or tensor.dtype == info.dtype):
        return fit(name, tensor, info)
    given = tensor.detach().cpu().contiguous()
    return fit(name, given, replace(info, dtype=given.dtype, shape=tuple(given.shape)))
