"""Save by patching: a copy of the original folder in which only the bytes of the moved tensors differ."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from forq.checkpoints import finite
from forq.checkpoints.contents import Contents
from forq.checkpoints.replace import check_destination, replace_folder
from forq.checkpoints.tensor import TensorInfo
from forq.errors import ConfigError, FormatError

_SKIPPED_FOLDERS = frozenset({".git", ".cache", ".locks", "__pycache__"})
_WEIGHTS = (
    *("*.safetensors", "*.gguf", "*.onnx", "*pytorch_model*.bin", "consolidated*.pth", "qmodel.pt"),
    *("tf_model*.h5", "flax_model*.msgpack"),
)
_CHUNK = 1 << 20
_SKIPPED_SUFFIXES = (".lock", ".incomplete", ".partial")


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save did.

    Attributes:
        path: the folder made.
        tensors: names whose bytes were written, in order.
        bytes_written: how many bytes of the copy those are.
        max_rounding: largest |stored − given| / |given| where a value was rounded to the file's dtype.
    """

    path: Path
    tensors: tuple[str, ...]
    bytes_written: int
    max_rounding: float


def save_patched(
    src: Path,
    contents: Contents,
    dst: Path,
    tensors: Mapping[str, Tensor],
    extra_files: Mapping[str, bytes | Path],
    overwrite: bool,
) -> Saved:
    """See :meth:`forq.checkpoints.Checkpoint.save_patched`."""
    info = contents.info
    files = files_of(src) if contents.files is None else list(contents.files)
    # Of one file that holds all only the file itself is the original: a run may lie beside it.
    check_destination(src if contents.files is None else src / files[0], dst, overwrite)
    _check_extra(files, extra_files)
    names, roundings = sorted(tensors), [0.0]

    def fill(folder: Path) -> None:
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(src / name, folder / name)
        for name in names:  # one tensor is in memory at a time; what does not fit leaves no folder behind
            tensor, rounding = fit(name, tensors[name], info[name])
            roundings.append(rounding)
            with (folder / info[name].file).open("r+b") as stream:
                info[name].write(stream, tensor)
        if contents.mend is not None and names:
            contents.mend(folder)
        for name, content in extra_files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, folder / name)
            else:
                (folder / name).write_bytes(content)

    replace_folder(dst, fill)
    return Saved(
        dst,
        tuple(names),
        sum(info[name].nbytes for name in names),
        max(roundings),
    )


def fit(name: str, tensor: Tensor, info: TensorInfo) -> tuple[Tensor, float]:
    """The tensor in its file's dtype, and the largest relative rounding that took."""
    if tuple(tensor.shape) != info.shape:
        raise FormatError(f"{name}: expected shape {info.shape}, found {tuple(tensor.shape)}")
    given = tensor.detach().cpu()
    same = given.dtype == info.dtype
    if not same and not (given.dtype in (torch.float32, torch.float64) and info.dtype.is_floating_point):
        raise FormatError(f"{name}: expected {info.dtype} as in the file, or float32; found {given.dtype}")
    stored = given.to(info.dtype)
    if not finite.holds(stored):
        worst = float(given.abs().max())
        raise FormatError(
            f"{name}: expected finite values that fit {info.dtype}, found a magnitude of {worst:g}; "
            "the run has diverged: lower the learning rate"
        )
    if same:
        return given, 0.0
    return stored, _rounding(given.reshape(-1), stored.reshape(-1))


def _rounding(given: Tensor, stored: Tensor) -> float:
    """The largest |stored − given| / |given|, a chunk at a time."""
    worst = 0.0
    for start in range(0, len(given), _CHUNK):
        exact = given[start : start + _CHUNK].double()
        off = stored[start : start + _CHUNK].double().sub_(exact).abs_().div_(exact.abs_()).nan_to_num_(nan=0.0)
        worst = max(worst, float(off.max()))
    return worst


def files_of(src: Path) -> list[str]:
    """Every file worth keeping, relative to the folder; links are followed (hub snapshots are links)."""
    found = []
    for root, folders, names in os.walk(src, followlinks=False):
        folders[:] = sorted(folder for folder in folders if folder not in _SKIPPED_FOLDERS)
        here = Path(root).relative_to(src)
        found += [(here / name).as_posix() for name in sorted(names) if not name.endswith(_SKIPPED_SUFFIXES)]
    return found


def unread(src: Path, contents: Contents) -> list[str]:
    """Weights in a folder that belong to no tensor of its contents: the same in another form, or an older model's."""
    if contents.files is not None:
        return []
    read = {info.file for info in contents.info.values()}
    # Of a pipeline the other components' weights are read when its data are made.
    own = f"{contents.component}/" if contents.component else ""
    return [
        name
        for name in sorted(files_of(src))
        if name.startswith(own) and name not in read and any(fnmatchcase(Path(name).name, end) for end in _WEIGHTS)
    ]


def _check_extra(files: list[str], extra_files: Mapping[str, bytes | Path]) -> None:
    for name in extra_files:
        if name in files or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ConfigError(f"expected the name of a file the checkpoint does not have, found {name!r}")
