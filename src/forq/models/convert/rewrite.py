"""Rewrite a checkpoint's folder with some of its tensors replaced, layer by layer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.patch import files_of
from forq.checkpoints.pointers import WEIGHTS
from forq.checkpoints.write import write_file
from forq.models.convert.companions import SETTINGS, companions

Plan = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Dtypes and shapes of tensors, by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """New tensors that replace old ones.

    Attributes:
        old: names of the replaced tensors; the new tensors go into the file of the first.
        plan: dtypes and shapes of the new tensors, known before they are made.
        make: makes the new tensors.
    """

    old: tuple[str, ...]
    plan: Plan
    make: Callable[[], Mapping[str, Tensor]]


def planned(tensors: Mapping[str, Tensor]) -> Plan:
    """The plan of existing tensors."""
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def rewrite(ckpt: Checkpoint, folder: Path, pieces: Iterable[Piece], config: Mapping[str, object]) -> None:
    """Fill an empty folder with the new tensors, all other tensors, config.json and all other files.

    Files of safetensors keep their names; other containers become a single file. Unless that is all there is, an
    index says where the tensors lie: loaders look for the plain name or for an index. A quantize_config.json says
    what config.json says; where that has nothing to say, none is written.

    Only one piece is in memory at a time.
    """
    by_first = {piece.old[0]: piece for piece in pieces}
    gone = {name for piece in by_first.values() for name in piece.old}
    # In a pipeline, only the denoiser's folder is rewritten.
    own = ckpt.contents.component or ""
    old, new = ckpt.folder / own, folder / own
    new.mkdir(exist_ok=True)
    single = "diffusion_pytorch_model.safetensors" if own else "model.safetensors"
    files: dict[str, list[str]] = {}
    for name, info in ckpt.info.items():
        if name in by_first or name not in gone:
            file = info.file.rpartition("/")[2] if info.file.endswith(".safetensors") else single
            files.setdefault(file, []).append(name)
    where: dict[str, str] = {}
    total = 0
    for file, names in sorted(files.items()):
        plan: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        for name in names:
            info = ckpt.info[name]
            plan |= by_first[name].plan if name in by_first else {name: (info.dtype, info.shape)}
        total += write_file(new / file, plan, _tensors(ckpt, names, by_first))
        where |= dict.fromkeys(plan, file)
    if set(files) != {single}:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        write_json(new / f"{single}.index.json", index)
    for name in companions(old) if ckpt.contents.files is None else ():
        if (old / name).is_file() and not (new / name).exists():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(old / name, new / name)
    for name in files_of(ckpt.folder) if own else ():
        if not name.startswith(f"{own}/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ckpt.folder / name, folder / name)
    if ckpt.contents.tokenizer is not None:
        ckpt.contents.tokenizer().save_pretrained(folder)
    write_json(new / "config.json", {key: value for key, value in config.items() if key != WEIGHTS})
    settings = config.get("quantization_config")
    if isinstance(settings, dict) and settings.get("quant_method") == "gptq" and (old / SETTINGS[0]).is_file():
        write_json(new / SETTINGS[0], settings)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a JSON object with indentation."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _tensors(ckpt: Checkpoint, names: list[str], by_first: Mapping[str, Piece]) -> Iterator[tuple[str, Tensor]]:
    for name in names:
        if name in by_first:
            yield from by_first[name].make().items()
        else:
            yield name, ckpt.read(name)
