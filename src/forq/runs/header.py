"""The journal's header: what a run depends on, and whether a later session has the same."""

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
from forq.models.quantized import kernels, multiplier
from forq.recipes.settings import settings
from forq.runs.older_runs import BALANCED, NAMES, READING, TEXT, unbalanced
from forq.runs.trainer import Trainer

_SHARED = {
    "law": "use the forq that wrote it",
    "base": "give the checkpoint the run was started from",
    "adapter": "give the adapter that the run went on from, by --adapter",
    "start": "give the checkpoint the run was started from",
    "task": "give the data the run was started with",
    "method": "settings cannot change within a run: begin another",
    "device": "resume on the same kind of device",
    "dtype": "load the model in the same dtype",
    "threads": "config.toml of the run says how many",
    "activations": "load the model with the same activations; forq's own products need a processor with AMX and a C "
    "compiler",
    "kernel": "install what the run was begun with (onnxruntime for ort, a C compiler for native, which CC=false turns "
    "off), or load the model with the same kernel",
    "leaves": "give the checkpoint the run was started from",
    "profile": "profile.safetensors of the run is not the one it was begun with",
    "watch": "give the data that was watched when the run was started",
}
"""Fields that a resumed run must share with its journal, and what to do if they differ."""

_FOR_PEOPLE = ("origin", "names", "unused", "missing", "quoted", "guessed", "transparent")
_OF_RANK = ("device", "dtype", "activations", "kernel", "threads")


def header(trainer: Trainer) -> dict[str, object]:
    """The fields of the journal's header; a different base, law or setting is refused by them."""
    model, config = trainer.model, trainer.config
    return {
        "law": spaces.LAW,
        "base": model.checkpoint.digest(),
        "start": trainer.space.digest(),
        "method": {"recipe": config.recipe, "seed": config.seed, "steps": config.steps} | config.method.model_dump(),
        "task": dict(trainer.task.describe()),
        "leaves": trainer.space.table(),
        "profile": None if trainer.profile is None else trainer.profile.digest,
        "adapter": trainer.start,
        "portable": config.method.portable,
        **of_rank(trainer),
        **({"watch": _watched(trainer)} if trainer.watches else {}),
        # For people only; the digests above identify the bytes, whatever their path.
        "names": {"checkpoint": Path(config.checkpoint).name, "data": Path(config.task.data).name},
        "versions": {name: version(name) for name in _packages(model)} | {"python": platform.python_version()},
    }


def of_rank(trainer: Trainer) -> dict[str, object]:
    """What decides the last bits of a loss. Of several ranks each has its own, and the header names the chief's."""
    model = trainer.model
    return {
        "device": model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        # int8 names a kernel; a run in float says nothing, as journals of older versions do.
        **({"activations": f"bfloat16 by {by}"} if (by := multiplier(model)) is not None else {}),
        "kernel": _kernel(model),
        "threads": torch.get_num_threads(),
    }


def require_same(
    folder: Path,
    written: Mapping[str, Any],
    now: Mapping[str, object],
    *,
    of_ranks: bool = False,
    because: str = "cannot resume: its journal was written with",
) -> None:
    """Refuse to go on with a run whose header differs.

    Args:
        written: the header in the run's journal.
        now: the header that this session would write.
        because: the words in front of what the header says.
        of_ranks: several ranks measure the run's losses, or did, so that device, dtype, activations,
            kernel and threads may differ.

    Raises:
        JournalError: a field differs; the message shows both values and what to do.
    """
    # Both sides go through JSON, as the journal did: tuples become lists, and keys become text.
    theirs, ours = _comparable(written), _comparable(json.loads(json.dumps(now)))
    # Later versions may describe more fields; the task's digest covers every token and setting.
    older = False
    if isinstance(task := theirs.get("task"), dict):
        older = unbalanced(task) and ours["task"].get(BALANCED) is True
        ours["task"] = {key: value for key, value in ours["task"].items() if key in task}
    for key, mend in _SHARED.items():
        if of_ranks and key in _OF_RANK:
            continue
        if theirs.get(key) != ours.get(key):
            expected, found = _difference(theirs.get(key), ours.get(key))
            if key == "task" and older:
                mend = f"{mend}, and open the task with {BALANCED}=False (--set task.{BALANCED}=false)"
            raise JournalError(f"{folder}: {because} {key} {expected}, found {found}; {mend}")


def _comparable(header: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a header on which two sessions of a run must agree.

    Its method names every setting; settings that an older journal lacks take their defaults. The
    names of the data's files are left out, read or not, since the digest identifies the same data under
    another name, and so are warnings. The names of the classes are left out too: the digest and
    ``classes`` identify them, and an older forq called the classes of a head without names LABEL_0, ….
    """
    result = dict(header)
    try:
        method = header["method"]
        chosen = settings({name: value for name, value in method.items() if name not in NAMES}).model_dump()
        result["method"] = {name: method[name] for name in NAMES} | json.loads(json.dumps(chosen))
        result["task"] = {name: value for name, value in header["task"].items() if name not in _FOR_PEOPLE}
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError):
        return dict(header)  # not a header that a run writes; it is compared unchanged
    return result


def _difference(written: object, now: object) -> tuple[str, str]:
    """The first difference between two values of a key, as text."""
    if isinstance(written, dict) and isinstance(now, dict):
        for key in [*written, *now]:
            if written.get(key) != now.get(key):
                expected, found = _difference(written.get(key), now.get(key))
                return f"{key} = {expected}", f"{key} = {found}"
    texts = [json.dumps(value) for value in (written, now)]
    return texts[0][:120], texts[1][:120]


def _kernel(model: LoadedModel) -> str | dict[str, int | list[str]]:
    """The kernel of all layers. If layers differ: the count for the most common kernel, and the other layers' names."""
    by_size = sorted(kernels(model).items(), key=lambda item: len(item[1]))
    if len(by_size) < 2:
        return by_size[0][0] if by_size else "reference"
    return {**{name: sorted(layers) for name, layers in by_size[:-1]}, by_size[-1][0]: len(by_size[-1][1])}


def _watched(trainer: Trainer) -> dict[str, dict[str, object]]:
    """The watched data sets; the digest identifies the data."""
    return {
        watch.name: {
            **_of_law(watch.task.describe()),
            "digest": watch.task.digest,
            "rows": watch.rows,
            "limit": watch.limit,
        }
        for watch in trainer.watches
    }


def _of_law(described: Mapping[str, object]) -> dict[str, object]:
    """A task's name, and the law by which a text is read. Runs of law 1 name none."""
    name, law = described["task"], described.get(READING, 1)
    return {"task": name} | ({READING: law} if name == TEXT and law != 1 else {})


def _packages(model: LoadedModel) -> list[str]:
    """The packages whose versions a journal names."""
    own = {"ort": "onnxruntime", "triton": "triton"}
    return ["forq", "torch", "transformers", "numpy", *(own[name] for name in kernels(model) if name in own)]
