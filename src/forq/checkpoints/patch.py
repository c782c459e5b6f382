"""Save by patching: copy the original folder and replace only the bytes of the tensors that changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from forq.checkpoints import finite
from forq.checkpoints.contents import Contents
from forq.checkpoints.replace import check_destination, replace_folder
from forq.checkpoints.streamed import Rows, rows_of
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
    """Result of a save.

    Attributes:
        path: the folder that was created.
        tensors: names of the tensors that were written, sorted.
        bytes_written: size of these tensors in bytes.
        max_rounding: largest relative error |stored − given| / |given| from rounding to the file's dtype.
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
    # The original of a single-file checkpoint is that file alone; the run may be saved beside it.
    check_destination(src if contents.files is None else src / files[0], dst, overwrite)
    _check_extra(files, extra_files)
    names, roundings = sorted(tensors), [0.0]

    def fill(folder: Path) -> None:
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(src / name, folder / name)
        for name in names:  # one tensor, or some rows of one, is in memory at a time; an error leaves no folder behind
            with (folder / info[name].file).open("r+b") as stream:
                for place, part in _placed(info[name], rows_of(tensors, name)):
                    tensor, rounding = fit(name, part, place)
                    roundings.append(rounding)
                    place.write(stream, tensor)
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


def _placed(info: TensorInfo, tensor: Rows) -> Iterator[tuple[TensorInfo, Tensor]]:
    """A tensor in parts, each with its place in the file; whole if it does not fit, which :func:`fit` then says."""
    if tensor.shape != info.shape or tensor.dtype.is_floating_point or not info.by_rows:
        yield info, tensor.whole()
        return
    start = 0
    for part in tensor.parts():
        yield info.rows(start, start + len(part)), part
        start += len(part)


def fit(name: str, tensor: Tensor, info: TensorInfo) -> tuple[Tensor, float]:
    """The tensor in its file's dtype, and the largest relative rounding error."""
    if tuple(tensor.shape) != info.shape:
        raise FormatError(f"{name}: expected shape {info.shape}, found {tuple(tensor.shape)}")
    given = tensor.detach().cpu()
    same = given.dtype == info.dtype
    if not same and not (given.dtype in (torch.float32, torch.float64) and info.dtype.is_floating_point):
        raise FormatError(f"{name}: expected {info.dtype} as in the file, or float32; found {given.dtype}")
    stored = given.to(info.dtype)
    if not finite.is_finite(stored):
        worst = float(given.abs().max())
        raise FormatError(
            f"{name}: expected finite values that fit {info.dtype}, found a magnitude of {worst:g}; "
            "the run has diverged: lower the learning rate"
        )
    if same:
        return given, 0.0
    return stored, _rounding(given.reshape(-1), stored.reshape(-1))


def _rounding(given: Tensor, stored: Tensor) -> float:
    """The largest |stored − given| / |given|, computed chunk by chunk."""
    worst = 0.0
    for start in range(0, len(given), _CHUNK):
        exact = given[start : start + _CHUNK].double()
        error = stored[start : start + _CHUNK].double().sub_(exact).abs_().div_(exact.abs_()).nan_to_num_(nan=0.0)
        worst = max(worst, float(error.max()))
    return worst


def files_of(src: Path) -> list[str]:
    """Files to copy, relative to the folder. Links to files are followed: hub snapshots consist of them."""
    files: list[str] = []
    for root, folders, names in os.walk(src, followlinks=False):
        folders[:] = sorted(folder for folder in folders if folder not in _SKIPPED_FOLDERS)
        here = Path(root).relative_to(src)
        files += [(here / name).as_posix() for name in sorted(names) if not name.endswith(_SKIPPED_SUFFIXES)]
    return files


def unread(src: Path, contents: Contents) -> list[str]:
    """Weight files in the folder that the checkpoint does not use: other formats or older versions."""
    if contents.files is not None:
        return []
    read = {info.file for info in contents.info.values()}
    # The other components of a pipeline are read later, when the training data are encoded.
    prefix = f"{contents.component}/" if contents.component else ""
    return [
        name
        for name in sorted(files_of(src))
        if name.startswith(prefix) and name not in read and any(fnmatchcase(Path(name).name, end) for end in _WEIGHTS)
    ]


def _check_extra(files: list[str], extra_files: Mapping[str, bytes | Path]) -> None:
    for name in extra_files:
        if name in files or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ConfigError(f"expected the name of a file that the checkpoint does not have, found {name!r}")
