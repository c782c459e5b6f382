"""The journal's first line: what a run depends on, and whether a later sitting depends on the same."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from forq.coordinates import space as spaces
from forq.errors import ConfigError, JournalError
from forq.models.loaded import LoadedModel
from forq.models.quantized import kernels
from forq.recipes.settings import settings
from forq.runs.trainer import Trainer

_SHARED = {
    "law": "use the forq that wrote it",
    "base": "give the checkpoint the run was started from",
    "start": "give the checkpoint the run was started from",
    "task": "give the data the run was started with",
    "method": "settings cannot change within a run: begin another",
    "device": "resume on the same kind of device",
    "dtype": "load the model in the same dtype",
    "threads": "config.toml of the run says how many",
    "kernel": "install what the run was begun with (onnxruntime for ort), or load the model with the same kernel",
    "leaves": "give the checkpoint the run was started from",
    "profile": "profile.safetensors of the run is not the one it was begun with",
}
"""What a resumed run must share with its journal, and what to do where it does not."""


def header(trainer: Trainer) -> dict[str, object]:
    """What the journal's first line says: enough to refuse another base, law or setting."""
    model, config = trainer.model, trainer.config
    return {
        "law": spaces.LAW,
        "base": model.checkpoint.digest(),
        "start": trainer.space.digest(),
        "method": {"recipe": config.recipe, "seed": config.seed, "steps": config.steps} | config.method.model_dump(),
        "task": dict(trainer.task.describe()),
        "leaves": trainer.space.table(),
        "profile": None if trainer.profile is None else trainer.profile.digest,
        "portable": config.method.portable,
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "kernel": _kernel(model),
        "threads": torch.get_num_threads(),
        # For people; the digests above identify the bytes, wherever they lie.
        "names": {"checkpoint": Path(config.checkpoint).name, "data": Path(config.task.data).name},
        "versions": {name: version(name) for name in _packages(model)} | {"python": platform.python_version()},
    }


def require_same(folder: Path, written: Mapping[str, Any], now: Mapping[str, object]) -> None:
    """Refuse to resume a run whose header differs.

    Args:
        written: the header in the run's journal.
        now: the header this sitting would write.

    Raises:
        JournalError: a field differs; both values are shown, and what to do.
    """
    # Through JSON, as the journal's side has been: tuples become lists, keys become text.
    theirs, ours = _comparable(written), _comparable(json.loads(json.dumps(now)))
    # Later versions may describe more; the task's digest covers every token and setting.
    if isinstance(task := theirs.get("task"), dict):
        ours["task"] = {key: value for key, value in ours["task"].items() if key in task}
    for key, mend in _SHARED.items():
        if theirs.get(key) != ours.get(key):
            expected, found = _difference(theirs.get(key), ours.get(key))
            raise JournalError(
                f"{folder}: cannot resume: its journal was written with {key} {expected}, found {found}; {mend}"
            )


def _comparable(header: Mapping[str, Any]) -> dict[str, Any]:
    """A header as two sittings of one run must agree on it.

    Its method names every setting: a setting that came later has its default in an older journal. The names of the
    data's files are left out: the digest beside them identifies the same data under another name.
    """
    own = ("recipe", "seed", "steps")
    result = dict(header)
    try:
        method = header["method"]
        chosen = settings({name: value for name, value in method.items() if name not in own}).model_dump()
        result["method"] = {name: method[name] for name in own} | json.loads(json.dumps(chosen))
        result["task"] = {name: value for name, value in header["task"].items() if name != "origin"}
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError):
        return dict(header)  # not what a run writes: it is shown as it stands
    return result


def _difference(written: object, now: object) -> tuple[str, str]:
    """The first place where two values of one key differ, in words."""
    if isinstance(written, dict) and isinstance(now, dict):
        for key in [*written, *now]:
            if written.get(key) != now.get(key):
                expected, found = _difference(written.get(key), now.get(key))
                return f"{key} = {expected}", f"{key} = {found}"
    texts = [json.dumps(value) for value in (written, now)]
    return texts[0][:120], texts[1][:120]


def _kernel(model: LoadedModel) -> str | dict[str, int | list[str]]:
    """The kernel of all layers; where they differ, how many have the usual one, and the names of the others."""
    by_size = sorted(kernels(model).items(), key=lambda item: len(item[1]))
    if len(by_size) < 2:
        return by_size[0][0] if by_size else "reference"
    return {**{name: sorted(layers) for name, layers in by_size[:-1]}, by_size[-1][0]: len(by_size[-1][1])}


def _packages(model: LoadedModel) -> list[str]:
    """The packages whose versions a journal names."""
    own = {"ort": "onnxruntime", "triton": "triton"}
    return ["forq", "torch", "transformers", "numpy", *(own[name] for name in kernels(model) if name in own)]
