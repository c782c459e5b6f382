"""Compare what a run's folder holds with the digest of the saved tensors in its journal; no base is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.coordinates import space as spaces
from forq.coordinates.domain import Domains
from forq.coordinates.space import Space
from forq.errors import FormatError
from forq.models.adapters.peft import FLOATS
from forq.runs.replay_leaves import Listed
from forq.runs.replay_leaves import leaves as replay_leaves


def as_saved(run: Path, listed: Sequence[Listed], domain: Domains, digest: str, *, grid: bool) -> bool | None:
    """Whether ``checkpoint/`` and ``adapter/`` hold the tensors that a run saved.

    Only tensors that could move are in the digest; a change elsewhere is seen with the base alone.

    Args:
        listed: the leaves in the journal's header.
        digest: of the saved tensors.
        grid: adapters are integers, whose PEFT file holds them times a factor that only the base gives.

    Returns:
        None where the folders are not there, or cannot be compared.

    Raises:
        FormatError: a file there cannot be read.
    """
    own = [leaf for leaf in listed if leaf[1] != "lora"]
    factors = [name for name, group, *_ in listed if group == "lora"]
    checkpoint, adapter = run / "checkpoint", run / "adapter"
    if (own and not checkpoint.is_dir()) or (factors and (grid or not adapter.is_dir())):
        return None
    held: dict[str, Tensor] = {}
    if own:
        # Nothing moves here, so an export gives back the values in the file.
        held |= Space(replay_leaves(own, Checkpoint.open(checkpoint)), domain).exported()
    if factors:
        held |= _factors(adapter / FLOATS, factors)
    return spaces.digest(held) == digest


def _factors(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            present = set(file.keys())
            return {name: file.get_tensor(name) for name in names if name in present}
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path}: expected a safetensors file, found {error}") from error
