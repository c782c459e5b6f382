"""Read the header of a safetensors file, and check it against the file's size before allocating anything.

Layout: the header's length n (8 bytes, little-endian), n bytes of JSON, then the tensors without gaps.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from forq.checkpoints import signature as _signature
from forq.checkpoints.tensor import DTYPES, TensorInfo
from forq.errors import FormatError

_LENGTH_BYTES = 8

# The limit of the safetensors library; a corrupt length must not make us read a whole shard as JSON.
_HEADER_LIMIT_BYTES = 100_000_000

_MAX_SIZE = 1 << 48

_MAX_RANK = 16


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Describe every tensor of one safetensors file.

    Raises:
        FormatError: the file is truncated, its header is malformed, or the tensors do not fill the file
            exactly.
    """
    size = path.stat().st_size
    header, base = _header(path)
    infos = {name: _describe(path, name, entry, base) for name, entry in header.items() if name != "__metadata__"}
    end = base
    for name, info in sorted(infos.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if info.start != end:
            raise FormatError(
                f"{path}: expected {name} to start at byte {end}, found {info.start}; the header is corrupt"
            )
        end += info.nbytes
    if end != size:
        raise FormatError(
            f"{path}: expected {end} bytes according to its header, found {size}; the file is truncated: "
            "download it again"
        )
    return infos


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file: texts by name.

    Raises:
        FormatError: see :func:`read_header`; or the metadata are not texts by name.
    """
    metadata = _header(path)[0].get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{path}: expected __metadata__ to map names to texts, found {metadata!r:.80}")
    return metadata


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The parsed header, and the offset at which the tensors begin."""
    size = path.stat().st_size
    if not size:
        raise FormatError(f"{path}: expected a safetensors file, found an empty one: download it again")
    _signature.check(path, "safetensors")
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, _HEADER_LIMIT_BYTES):
            raise FormatError(
                f"{path}: expected a safetensors header that fits a file of {size} bytes, found one of "
                f"{length} bytes; the file is truncated or is not safetensors: download it again"
            )
        raw = stream.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: expected a JSON header, found {error}; download the file again") from error
    if not isinstance(header, dict):
        raise FormatError(f"{path}: expected a JSON object as header, found {type(header).__name__}")
    return header, _LENGTH_BYTES + length


def _describe(path: Path, name: str, entry: Any, base: int) -> TensorInfo:
    where = f"{path}: {name}"
    if not isinstance(entry, dict):
        raise FormatError(f"{where}: expected dtype, shape and data_offsets, found {entry!r:.80}")
    kind = entry.get("dtype")
    dtype = DTYPES.get(kind) if isinstance(kind, str) else None
    if dtype is None:
        raise FormatError(f"{where}: expected a dtype among {', '.join(DTYPES)}; found {kind!r:.80}")
    shape, offsets = _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if shape is None or len(shape) > _MAX_RANK:
        raise FormatError(f"{where}: expected a shape of whole numbers, found {entry.get('shape')!r:.80}")
    if offsets is None or len(offsets) != 2:
        raise FormatError(f"{where}: expected two data offsets, found {entry.get('data_offsets')!r:.80}")
    nbytes = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != nbytes:
        raise FormatError(
            f"{where}: expected {nbytes} bytes for {kind} of shape {shape}, found {offsets[1] - offsets[0]}"
        )
    return TensorInfo(dtype, shape, path.name, base + offsets[0], nbytes)


def _sizes(value: Any) -> tuple[int, ...] | None:
    """A list of plausible sizes as a tuple; None for anything else."""
    valid = isinstance(value, list) and all(type(item) is int and 0 <= item < _MAX_SIZE for item in value)
    return tuple(value) if valid else None
