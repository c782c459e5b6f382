"""What a run writes: the checkpoint with what moved in it, and the adapters beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from forq.formats.checkpoint import Checkpoint
from forq.models import peft
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
        base.save_patched(checkpoint, with_twins(base, own), overwrite=True)
    if adapters:
        peft.write(adapter, base, adapters, tensors)
