"""The scheduler of a pipeline: the law of its noise levels, as far as training and drawing depend on it.

forq's noise levels are those of flow matching with one shift for all sizes of pictures:
σ′ = shift · σ / (1 + (shift − 1) · σ), and the denoiser is told 1000 · σ′.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forq.checkpoints.json_file import read_json
from forq.errors import FormatError
from forq.models.diffusion.denoiser import library

FILE = "scheduler/scheduler_config.json"
_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_TIMESTEPS = 1000


def shift_of(folder: Path) -> float:
    """The shift of the noise levels of a pipeline in a folder.

    Raises:
        FormatError: there is no scheduler, or its noise levels follow another law.
    """
    path = folder / FILE
    if not path.is_file():
        raise FormatError(f"{folder}: expected {FILE} of a pipeline, found none; download the whole pipeline")
    settings = read_json(path)
    if (name := settings.get("_class_name", _FLOW[0])) not in _FLOW:
        raise FormatError(
            f"{path}: expected a scheduler of flow matching, {' or '.join(_FLOW)}, found {name!r:.80}, which noises "
            "pictures by another law than the denoiser was trained with: take the pipeline's own scheduler"
        )
    if settings.get("use_dynamic_shifting"):
        raise FormatError(
            f"{path}: expected one shift of the noise levels, found use_dynamic_shifting, which makes it depend on the "
            "size of a picture; set it to false, and shift to the number you want"
        )
    if (count := settings.get("num_train_timesteps", _TIMESTEPS)) != _TIMESTEPS:
        raise FormatError(f"{path}: expected {_TIMESTEPS} num_train_timesteps, found {count!r:.40}")
    shift = settings.get("shift", 1.0)
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not 0 < shift < 1e6:
        raise FormatError(f"{path}: expected a positive shift, found {shift!r:.40}")
    return float(shift)


def scheduler(folder: Path) -> Any:
    """The pipeline's own scheduler of diffusers."""
    settings: Mapping[str, object] = read_json(folder / FILE)
    return getattr(library(), str(settings.get("_class_name", _FLOW[0]))).from_pretrained(folder / "scheduler")
