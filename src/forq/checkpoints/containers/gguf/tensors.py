"""The tensors of a GGUF file as a checkpoint's, whole or a few of their rows, and blocks field by field."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from forq.checkpoints.containers.gguf.header import Header, Placed
from forq.checkpoints.containers.gguf.kinds import BLOCKS, FLOATS
from forq.checkpoints.tensor import TensorInfo
from forq.errors import FormatError


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of ours that is some or all rows of one of the file's.

    Attributes:
        shape: of ours.
        first: the file's row at which it begins.
        order: of its rows, see :class:`~forq.checkpoints.tensor.TensorInfo`.
    """

    name: str
    shape: tuple[int, ...]
    first: int = 0
    order: Callable[[int], Tensor] | None = None


def read(
    path: Path, header: Header, parts: Callable[[Placed], Sequence[Part]]
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Where every tensor lies, in name order, and the types of those that are blocks, by name.

    Of a tensor of blocks every field is one of ours, ``….q_proj.weight.d`` (rows, blocks), ``….q_proj.weight.qs``
    (rows, blocks, 16); together they are all its bytes.

    Args:
        parts: what of ours a tensor of the file holds; together all its rows.

    Raises:
        FormatError: a tensor of another type, of broken blocks, or that reaches into the next.
    """
    info: dict[str, TensorInfo] = {}
    types: dict[str, str] = {}
    ends: list[tuple[int, int, str]] = []
    for one in header.tensors:
        ours = parts(one)
        kind, dtype = BLOCKS.get(one.kind), FLOATS.get(one.kind)
        if dtype is not None:
            row = math.prod(one.shape[1:]) * dtype.itemsize
            for part in ours:
                nbytes, start = math.prod(part.shape) * dtype.itemsize, one.start + part.first * row
                _add(path, info, part.name, TensorInfo(dtype, part.shape, path.name, start, nbytes, order=part.order))
        elif kind is not None:
            fits = len(one.shape) == 2 and not one.shape[1] % kind.size
            if not fits or not all(part.name.endswith(".weight") for part in ours):
                raise FormatError(
                    f"{path}: {one.name}: expected a matrix in whole blocks of {kind.size}, found {one.shape}"
                )
            blocks = one.shape[1] // kind.size
            row = blocks * kind.nbytes
            for part in ours:
                types[part.name], rows = kind.name, part.shape[0]
                for field in kind.fields:
                    shape = (rows, blocks) if field.count == 1 else (rows, blocks, field.count)
                    start = one.start + part.first * row + field.start
                    nbytes = rows * blocks * field.nbytes
                    pieces = {"piece": field.nbytes, "pitch": kind.nbytes}
                    found = TensorInfo(field.dtype, shape, path.name, start, nbytes, **pieces, order=part.order)
                    _add(path, info, f"{part.name}.{field.name}", found)
        else:
            known = ", ".join(["F32", "F16", "BF16", *(kind.name for kind in BLOCKS.values())])
            raise FormatError(f"{path}: {one.name}: expected a type among {known}, found number {one.kind}")
        ends.append((one.start, one.start + one.shape[0] * row, one.name))
    _apart(path, sorted(ends), header.size)
    return dict(sorted(info.items())), types


def _add(path: Path, info: dict[str, TensorInfo], name: str, one: TensorInfo) -> None:
    if name in info:
        raise FormatError(f"{path}: expected one tensor to be {name}, found two of the file's")
    info[name] = one


def _apart(path: Path, ends: list[tuple[int, int, str]], size: int) -> None:
    """No tensor reaches into the next, or beyond the file."""
    for (_, end, name), (start, _, _) in zip(ends, [*ends[1:], (size, size, "")], strict=True):
        if end > start:
            raise FormatError(
                f"{path}: {name}: expected {end} bytes before what comes next, found {start}; the file is truncated or "
                "damaged: download it again"
            )
