"""Snapshots: the masters of a run at one step, to resume from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from forq.checkpoints import Rows, Streamed, TensorInfo
from forq.checkpoints.containers.safetensors import read_header, read_metadata
from forq.checkpoints.write import write_file
from forq.errors import FormatError, RunError


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The masters of a run, by leaf name.

    Attributes:
        step: number of journal lines in it; in a snapshot of the best, number of training steps.
    """

    tensors: Mapping[str, Tensor]
    step: int

    @classmethod
    def load(cls, path: Path) -> Snapshot | None:
        """Read a snapshot, or return ``None`` if the file is missing or incomplete.

        Its tensors are read on demand, whole or some rows at a time.
        """
        try:
            infos, step = read_header(path), int(read_metadata(path).get("step", "-1"))
        except (OSError, FormatError, ValueError):
            return None
        return cls(Streamed({name: partial(_rows, path, info) for name, info in infos.items()}), step)

    def save(self, path: Path) -> None:
        """Write the snapshot whole or not at all.

        Raises:
            RunError: the file cannot be written, for example on a full disk.
        """
        new = path.with_suffix(".new")
        plan = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in self.tensors.items()}
        tensors = ((name, self.tensors[name].cpu()) for name in plan)
        try:
            write_file(new, plan, tensors, {"step": str(self.step)})
            with new.open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:  # a full disk
            raise RunError(f"{new}: {error}; nothing that was already written is lost") from error
        new.replace(path)


def _rows(path: Path, info: TensorInfo) -> Rows | Tensor:
    if not info.by_rows:
        return read_tensor(path, info)
    return Rows(info.dtype, info.shape, lambda start, stop: read_tensor(path, info.rows(start, stop)))


def read_tensor(path: Path, info: TensorInfo) -> Tensor:
    """Read one tensor of a safetensors file, or some rows of it."""
    with path.open("rb") as stream:
        return info.read(stream)
