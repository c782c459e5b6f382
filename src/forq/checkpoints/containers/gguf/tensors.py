"""Map the tensors of a GGUF file to a checkpoint's: whole or by rows, and blocks field by field."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from forq.checkpoints.containers.gguf.header import Header, Placed
from forq.checkpoints.containers.gguf.kinds import BLOCKS, FLOATS, REFUSED, Kind
from forq.checkpoints.tensor import TensorInfo
from forq.errors import FormatError


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of the checkpoint that is stored as some or all rows of a tensor of the file.

    Attributes:
        name, shape: name and shape in the checkpoint.
        first: index of its first row in the file's tensor.
        order, turned, added: see :class:`~forq.checkpoints.tensor.TensorInfo`. A matrix in blocks is never turned:
            quantized layers are (out, in) in every model.
    """

    name: str
    shape: tuple[int, ...]
    first: int = 0
    order: Callable[[int], Tensor] | None = None
    turned: bool = False
    added: float = 0.0


def read(
    path: Path, header: Header, parts: Callable[[Placed], Sequence[Part]]
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The location of every tensor, in name order, and the types of the quantized ones, by name.

    Each field of a quantized tensor becomes a tensor, ``….q_proj.weight.d`` (rows, blocks) or
    ``….q_proj.weight.qs`` (rows, blocks, 16). Together they cover all its bytes.

    Args:
        parts: the checkpoint's tensors that a tensor of the file holds. Together they cover all its rows.

    Raises:
        FormatError: a tensor's type is not supported, it has incomplete blocks, or it overlaps the next.
    """
    info: dict[str, TensorInfo] = {}
    types: dict[str, str] = {}
    ends: list[tuple[int, int, str]] = []
    for tensor in header.tensors:
        stored = parts(tensor)
        kind, dtype = BLOCKS.get(tensor.kind), FLOATS.get(tensor.kind)
        if dtype is not None:
            row = math.prod(tensor.shape[1:]) * dtype.itemsize
            for part in stored:
                nbytes, start = math.prod(part.shape) * dtype.itemsize, tensor.start + part.first * row
                shape = part.shape[::-1] if part.turned else part.shape
                where = TensorInfo(
                    dtype, shape, path.name, start, nbytes, order=part.order, turned=part.turned, added=part.added
                )
                _add(path, info, part.name, where)
        elif kind is not None:
            fits = len(tensor.shape) == 2 and not tensor.shape[1] % kind.size
            if not fits or not all(part.name.endswith(".weight") for part in stored):
                raise FormatError(
                    f"{path}: {tensor.name}: expected a matrix in whole blocks of {kind.size}, found {tensor.shape}"
                )
            row = tensor.shape[1] // kind.size * kind.nbytes
            for part in stored:
                types[part.name] = kind.name
                for name, field_info in _fields(path, tensor, part, kind):
                    _add(path, info, name, field_info)
        else:
            known = ", ".join(["F32", "F16", "BF16", *(kind.name for kind in BLOCKS.values())])
            unknown = REFUSED.get(tensor.kind, f"number {tensor.kind}")
            raise FormatError(f"{path}: {tensor.name}: expected a type among {known}, found {unknown}")
        ends.append((tensor.start, tensor.start + tensor.shape[0] * row, tensor.name))
    _check_gaps(path, sorted(ends), header.size)
    return dict(sorted(info.items())), types


def _fields(path: Path, tensor: Placed, part: Part, kind: Kind) -> Iterator[tuple[str, TensorInfo]]:
    """Name and location of each field of a quantized tensor's rows."""
    rows, blocks = part.shape[0], tensor.shape[1] // kind.size
    first = tensor.start + part.first * blocks * kind.nbytes
    for field in kind.fields:
        shape = (rows, blocks) if field.count == 1 else (rows, blocks, field.count)
        yield (
            f"{part.name}.{field.name}",
            TensorInfo(
                field.dtype,
                shape,
                path.name,
                first + field.start,
                rows * blocks * field.nbytes,
                piece=len(field.mask) or field.nbytes,
                pitch=kind.nbytes,
                order=part.order,
                mask=field.mask,
            ),
        )


def _add(path: Path, info: dict[str, TensorInfo], name: str, location: TensorInfo) -> None:
    if name in info:
        raise FormatError(f"{path}: expected one tensor for {name}, found two in the file")
    info[name] = location


def _check_gaps(path: Path, ends: list[tuple[int, int, str]], size: int) -> None:
    """Refuse a tensor that reaches into the next one or beyond the end of the file."""
    for (_, end, name), (start, _, _) in zip(ends, [*ends[1:], (size, size, "")], strict=True):
        if end > start:
            raise FormatError(
                f"{path}: {name}: expected it to end by byte {start}, found its end at byte {end}; the file is "
                "truncated or damaged: download it again"
            )
