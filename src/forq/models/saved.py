"""What a run writes: the checkpoint with what moved in it, and the adapters beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from forq.formats.checkpoint import Checkpoint, Relaid, Saved
from forq.models import peft
from forq.models.load import recognised
from forq.models.twins import with_twins
from forq.quant.lora import Adapter


def save(
    base: Checkpoint, adapters: Sequence[Adapter], tensors: Mapping[str, Tensor], checkpoint: Path, adapter: Path
) -> None:
    """Write the checkpoint where a tensor of it moved, and the adapters where there are any; each whole or not at all.

    Args:
        tensors: what moved, by name, as the files hold it.

    Raises:
        ConfigError: a folder cannot be written.
    """
    own = {name: tensor for name, tensor in tensors.items() if name in base.info}
    if own:
        write(base, with_twins(base, own), checkpoint, overwrite=True)
    if adapters:
        peft.write(adapter, base, adapters, tensors)


def write(base: Checkpoint, tensors: Mapping[str, Tensor], folder: Path, *, overwrite: bool = False) -> Saved:
    """Write a checkpoint with tensors of it moved, as its format keeps them.

    Args:
        tensors: what moved, by name; continuous ones in float32 or what the file stores.

    Raises:
        FormatError: one that the checkpoint does not hold, or that does not fit its place.
        ConfigError: the folder exists, overlaps the original, or cannot be written.
    """
    return base.save_relaid(folder, planned(base, tensors), overwrite=overwrite)


def planned(base: Checkpoint, tensors: Mapping[str, Tensor]) -> Relaid:
    """What :func:`write` writes: the tensors themselves, unless the format has more to say."""
    relaid = getattr(recognised(base), "relaid", None)
    plan: Relaid = Relaid(tensors) if relaid is None else relaid(base, tensors)
    return plan
