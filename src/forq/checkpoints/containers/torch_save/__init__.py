"""A file written by torch.save: its tensors are byte ranges of an uncompressed ZIP.

    local header, [extra], bytes, checksum …        one record each: data.pkl, byteorder, data/0, data/1, …
    directory of all records                        name, checksum, size and offset of each

Nothing in the file is executed (:mod:`forq.checkpoints.containers.torch_save.pickled`). A save replaces
bytes in a copy and then corrects the checksums of the records; each checksum is stored twice. The id
that torch derives from the checksums is left unchanged, because torch never reads it.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from forq.checkpoints import signature as _signature
from forq.checkpoints.containers.torch_save import pickled
from forq.checkpoints.contents import Contents
from forq.checkpoints.tensor import TensorInfo
from forq.errors import FormatError

# An index has about 400 bytes a layer. A hostile one can take seventy times its size in memory.
_INDEX_LIMIT_BYTES = 1 << 22
_CHUNK_BYTES = 1 << 22
_DEPTH, _MOST_LEAVES = 8, 1 << 20
_FULL = 0xFFFFFFFF
_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the ZIP.

    Attributes:
        start, size: offset and length of its bytes.
        checksum: CRC-32 from the directory.
        places: offsets of the checksum's copies in the file.
    """

    start: int
    size: int
    checksum: int
    places: tuple[int, ...]


def contents(file: Path, config: dict[str, Any]) -> Contents:
    """Read the contents of a file from its directory and index.

    Raises:
        FormatError: the file is damaged, compressed, or holds more than tensors and plain values.
    """
    _signature.check(file, "a ZIP")
    try:
        by_name = records(file)
        heads = [name.removesuffix("/data.pkl") for name in by_name if name.endswith("/data.pkl")]
        if len(heads) != 1 or by_name[f"{heads[0]}/data.pkl"].size > _INDEX_LIMIT_BYTES:
            raise FormatError(f"expected one index data.pkl of at most {_INDEX_LIMIT_BYTES} bytes")
        with file.open("rb") as stream:
            order = by_name.get(f"{heads[0]}/byteorder")
            if order is not None and _bytes(stream, order.start, min(order.size, 16)) != b"little":
                raise FormatError("expected little-endian numbers; save it on another machine")
            index = by_name[f"{heads[0]}/data.pkl"]
            tree = pickled.read(_bytes(stream, index.start, index.size))
        info: dict[str, TensorInfo] = {}
        values: dict[str, Any] = {}
        for name, value in flat(tree):
            if isinstance(value, pickled.Stored):
                info[name] = _info(file, name, value, by_name.get(f"{heads[0]}/data/{value.key}"))
            else:
                values[name] = value.text if isinstance(value, pickled.Name) else value
    except FormatError as error:
        raise FormatError(f"{file}: {error}") from None
    return Contents(config, dict(sorted(info.items())), mend=partial(_mend, file.name), values=values)


def records(file: Path) -> dict[str, Record]:
    """Read the directory at the end of the file, and check that every record lies inside the file.

    Raises:
        FormatError: the file is no ZIP, is damaged, or a record is compressed.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        count, length, begin = _directory(stream, size)
        if begin + length > size or count * 46 > length:
            raise FormatError(f"expected a ZIP directory inside the file's {size} bytes; it is truncated or damaged")
        raw = memoryview(_bytes(stream, begin, length))
        by_name: dict[str, Record] = {}
        offset = 0
        for _ in range(count):
            name, record, step = _record(stream, raw[offset:], begin + offset, begin)
            if name in by_name:
                raise FormatError(f"expected every record once, found {name!r} twice")
            by_name[name] = record
            offset += step
    if sum(record.size for record in by_name.values()) > size:
        raise FormatError("expected separate records, found overlapping ones; the file is damaged")
    return by_name


def _directory(stream: BinaryIO, size: int) -> tuple[int, int, int]:
    """Number of records, length and offset of the directory. torch.save writes no comment behind it."""
    if size < 22:
        raise FormatError(f"expected a ZIP as torch.save writes it, found {size} bytes")
    mark, _, _, _, count, length, begin, comment = struct.unpack("<4s4H2IH", _bytes(stream, size - 22, 22))
    if mark != b"PK\x05\x06" or comment:
        raise FormatError("expected a ZIP as torch.save writes it; the file is truncated, or older than torch 1.6")
    if size >= 98 and _bytes(stream, size - 42, 4) == b"PK\x06\x07":
        (place,) = struct.unpack("<Q", _bytes(stream, size - 34, 8))
        if place > size - 98 or _bytes(stream, place, 4) != b"PK\x06\x06":
            raise FormatError("expected the offset of a large ZIP's directory; the file is damaged")
        count, length, begin = struct.unpack("<3Q", _bytes(stream, place + 32, 24))
    return count, length, begin


def _record(stream: BinaryIO, raw: memoryview, place: int, end: int) -> tuple[str, Record, int]:
    """Read an entry of the directory: name, record, and the length of the entry."""
    if len(raw) < 46 or bytes(raw[:4]) != b"PK\x01\x02":
        raise FormatError("expected an entry of a ZIP directory; the file is damaged")
    flags, method, checksum, packed, size, n, extra, note, offset = struct.unpack("<8x2H4x3I3H8xI", raw[:46])
    step = 46 + n + extra + note
    if step > len(raw):
        raise FormatError("expected complete entries in the ZIP directory; the file is damaged")
    size, packed, offset = _wide(raw[46 + n : 46 + n + extra], size, packed, offset)
    if method or packed != size or flags & 1:
        raise FormatError("expected plain records, found a compressed or encrypted one; save it with torch.save")
    if offset + 30 > end:
        raise FormatError("expected a record before the directory; the file is damaged")
    local = _bytes(stream, offset, 30)
    length, more = struct.unpack("<2H", local[26:30])
    start = offset + 30 + length + more
    if local[:4] != b"PK\x03\x04" or start + size > end:
        raise FormatError("expected a record inside the file; it is truncated or damaged")
    name = bytes(raw[46 : 46 + n])
    if _bytes(stream, offset + 30, length) != name:
        raise FormatError("expected the same record name as in the directory; the file is damaged")
    places = [place + 16]
    if not flags & 8:
        places.append(offset + 14)
    elif start + size + 8 <= end:  # the checksum follows the bytes, with or without a mark
        marked = _bytes(stream, start + size, 4) == b"PK\x07\x08"
        places.append(start + size + (4 if marked else 0))
    return name.decode("utf-8", "replace"), Record(start, size, checksum, tuple(places)), step


def _wide(extra: memoryview, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The three numbers; those that do not fit 32 bits come from the extra field of large ZIPs."""
    begin = 0
    while begin + 4 <= len(extra):
        kind, length = struct.unpack("<2H", extra[begin : begin + 4])
        if kind == 1:
            wide = list(struct.unpack(f"<{length // 8}Q", extra[begin + 4 : begin + 4 + length // 8 * 8]))
            numbers = [wide.pop(0) if number == _FULL and wide else number for number in (size, packed, offset)]
            return numbers[0], numbers[1], numbers[2]
        begin += 4 + length
    return size, packed, offset


def _info(file: Path, name: str, tensor: pickled.Stored, record: Record | None) -> TensorInfo:
    dtype = _DTYPES.get(tensor.kind)
    if dtype is None or record is None:
        raise FormatError(f"{name}: expected a record {tensor.key!r} of a known dtype, found {tensor.kind}")
    nbytes, first = math.prod(tensor.shape) * dtype.itemsize, tensor.start * dtype.itemsize
    if first + nbytes > record.size:
        raise FormatError(f"{name}: expected {first + nbytes} bytes in record {tensor.key!r}, found {record.size}")
    return TensorInfo(dtype, tensor.shape, file.name, record.start + first, nbytes)


def flat(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of nested dictionaries under dotted names. A leaf may occur in several dictionaries."""
    leaves: list[tuple[str, Any]] = []
    todo: list[tuple[str, Any, int]] = [("", tree, 0)]
    while todo:
        path, value, depth = todo.pop()
        if not isinstance(value, dict):
            leaves.append((path, value))
            continue
        if depth == _DEPTH or len(todo) + len(leaves) + len(value) > _MOST_LEAVES:
            raise FormatError(f"expected dictionaries at most {_DEPTH} deep, of at most {_MOST_LEAVES} entries")
        todo += [(f"{path}.{key}" if path else key, inner, depth + 1) for key, inner in value.items()]
    return leaves


def _mend(name: str, folder: Path) -> None:
    """Correct the checksums of records whose bytes were replaced."""
    for record in records(folder / name).values():
        checksum, remaining = 0, record.size
        with (folder / name).open("r+b") as stream:
            stream.seek(record.start)
            while remaining:
                chunk = stream.read(min(remaining, _CHUNK_BYTES))
                checksum = zlib.crc32(chunk, checksum)
                remaining -= len(chunk)
            if checksum != record.checksum:
                for place in record.places:
                    stream.seek(place)
                    stream.write(struct.pack("<I", checksum))


def _bytes(stream: BinaryIO, start: int, size: int) -> bytes:
    stream.seek(start)
    data = stream.read(size)
    if len(data) != size:
        raise FormatError("the file is truncated: download it again")
    return data
