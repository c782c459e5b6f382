"""Save anew: where what moved has another dtype than the file keeps, the files it lies in are written again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.core import FormatError
from forq.formats.checkpoint.contents import Contents
from forq.formats.checkpoint.header import TensorInfo
from forq.formats.checkpoint.patch import Saved, files_of, fit
from forq.formats.checkpoint.replace import check_destination, replace_folder
from forq.formats.checkpoint.write import write_file

_CONFIG, _INDEX = "config.json", "model.safetensors.index.json"


@dataclass(frozen=True, slots=True, eq=False)
class Relaid:
    """What a save writes.

    Attributes:
        tensors: by names the checkpoint has; of the file's dtype and shape or, where something is gone or the settings
            change, of others.
        gone: names that the new files do not hold.
        config: the new config.json, or None: the old one.
    """

    tensors: Mapping[str, Tensor]
    gone: frozenset[str] = field(default_factory=frozenset)
    config: Mapping[str, Any] | None = None

    @property
    def patches(self) -> bool:
        """Whether replacing bytes of a copy does it."""
        return not self.gone and self.config is None


def save_relaid(src: Path, contents: Contents, dst: Path, plan: Relaid, overwrite: bool) -> Saved:
    """Copy a folder, and write those of its safetensors anew that hold what changes; other tensors keep their bytes.

    Raises:
        FormatError: a value is not finite, or no file of the folder holds a tensor.
        ConfigError: ``dst`` exists, overlaps the original, or cannot be written.
    """
    info = contents.info
    check_destination(src, dst, overwrite)
    fitted = {name: _fitted(name, tensor, info[name]) for name, tensor in plan.tensors.items()}
    touched = {info[name].file for name in (*fitted, *plan.gone)}
    anew = {*touched, *({_CONFIG} if plan.config is not None else ())}

    def tensors(names: list[str]) -> Iterator[tuple[str, Tensor]]:
        for name in names:
            if name in fitted:
                yield name, fitted[name][0]
                continue
            with (src / info[name].file).open("rb") as stream:
                yield name, info[name].read(stream)

    def fill(folder: Path) -> None:
        for name in files_of(src):
            if name not in anew:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(src / name, folder / name)
        for file in sorted(touched):
            names = [name for name in info if info[name].file == file and name not in plan.gone]
            write_file(folder / file, {name: _described(name, info, fitted) for name in names}, tensors(names))
        if plan.config is not None:
            (folder / _CONFIG).write_text(json.dumps(plan.config, indent=2) + "\n", encoding="utf-8")
        if (folder / _INDEX).is_file():
            _correct(folder / _INDEX, info, fitted, plan.gone)

    replace_folder(dst, fill)
    return Saved(
        dst,
        tuple(sorted(fitted)),
        sum(tensor.nbytes for tensor, _ in fitted.values()),
        max((rounding for _, rounding in fitted.values()), default=0.0),
    )


def _fitted(name: str, tensor: Tensor, info: TensorInfo) -> tuple[Tensor, float]:
    """A tensor as it is written: in the file's dtype where it fits that, else as it is."""
    if tuple(tensor.shape) == info.shape and (info.dtype.is_floating_point or tensor.dtype == info.dtype):
        return fit(name, tensor, info)
    given = tensor.detach().cpu().contiguous()
    if given.dtype.is_floating_point and not torch.isfinite(given).all():
        raise FormatError(f"{name}: expected finite values, found others; the run diverged: lower the learning rate")
    return given, 0.0


def _described(
    name: str, info: Mapping[str, TensorInfo], fitted: Mapping[str, tuple[Tensor, float]]
) -> tuple[torch.dtype, tuple[int, ...]]:
    if name in fitted:
        return fitted[name][0].dtype, tuple(fitted[name][0].shape)
    return info[name].dtype, info[name].shape


def _correct(
    index: Path,
    info: Mapping[str, TensorInfo],
    fitted: Mapping[str, tuple[Tensor, float]],
    gone: frozenset[str],
) -> None:
    """Take what is gone from an index, and say the new size."""
    said = json.loads(index.read_bytes())
    said["weight_map"] = {name: file for name, file in said["weight_map"].items() if name not in gone}
    sizes = {name: fitted[name][0].nbytes if name in fitted else one.nbytes for name, one in info.items()}
    total = sum(size for name, size in sizes.items() if name not in gone)
    said["metadata"] = {**said.get("metadata", {}), "total_size": total}
    index.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
