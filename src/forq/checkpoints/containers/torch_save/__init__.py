"""A file torch.save wrote, as a container: its tensors are byte ranges of an uncompressed ZIP.

    local header, [extra], bytes, checksum …        a record each: data.pkl, byteorder, data/0, data/1, …
    directory of all records                        name, checksum, size and place of each

Nothing in it is executed (:mod:`forq.checkpoints.containers.torch_save.pickled`). A save replaces bytes of a copy and then puts the
checksums of the records right, of which each stands twice; the id torch derives from them once, and never reads, stays.
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

# Four hundred bytes a layer; and an index takes some seventy times its size in memory, if it wants to.
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
        start, size: where its bytes lie.
        checksum: as the directory has it.
        places: where the checksum stands in the file.
    """

    start: int
    size: int
    checksum: int
    places: tuple[int, ...]


def contents(file: Path, config: dict[str, Any]) -> Contents:
    """What the file holds, from its directory and index alone.

    Raises:
        FormatError: it is damaged, compressed, or holds more than tensors and plain values.
    """
    _signature.check(file, "a ZIP")
    try:
        held = records(file)
        heads = [name.removesuffix("/data.pkl") for name in held if name.endswith("/data.pkl")]
        if len(heads) != 1 or held[f"{heads[0]}/data.pkl"].size > _INDEX_LIMIT_BYTES:
            raise FormatError(f"expected one index data.pkl of at most {_INDEX_LIMIT_BYTES} bytes")
        with file.open("rb") as stream:
            order = held.get(f"{heads[0]}/byteorder")
            if order is not None and _bytes(stream, order.start, min(order.size, 16)) != b"little":
                raise FormatError("expected little-endian numbers; save it on another machine")
            index = held[f"{heads[0]}/data.pkl"]
            said = pickled.read(_bytes(stream, index.start, index.size))
        info: dict[str, TensorInfo] = {}
        values: dict[str, Any] = {}
        for name, value in _flat(said):
            if isinstance(value, pickled.Stored):
                info[name] = _info(file, name, value, held.get(f"{heads[0]}/data/{value.key}"))
            else:
                values[name] = value.said if isinstance(value, pickled.Name) else value
    except FormatError as error:
        raise FormatError(f"{file}: {error}") from None
    return Contents(config, dict(sorted(info.items())), mend=partial(_mend, file.name), values=values)


def records(file: Path) -> dict[str, Record]:
    """Every record by name, from the directory at the file's end; each is checked to lie inside the file.

    Raises:
        FormatError: it is no ZIP, damaged, or a record is compressed.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        count, length, begin = _directory(stream, size)
        if begin + length > size or count * 46 > length:
            raise FormatError(f"expected a ZIP directory inside the file's {size} bytes; it is truncated or damaged")
        raw = memoryview(_bytes(stream, begin, length))
        found: dict[str, Record] = {}
        at = 0
        for _ in range(count):
            name, record, step = _record(stream, raw[at:], begin + at, begin)
            if name in found:
                raise FormatError(f"expected every record once, found {name!r} twice")
            found[name] = record
            at += step
    if sum(record.size for record in found.values()) > size:
        raise FormatError("expected records that lie apart, found overlapping ones; the file is damaged")
    return found


def _directory(stream: BinaryIO, size: int) -> tuple[int, int, int]:
    """Records, bytes and place of the directory; torch.save leaves no comment behind it."""
    if size < 22:
        raise FormatError(f"expected a ZIP as torch.save writes it, found {size} bytes")
    mark, _, _, _, count, length, begin, comment = struct.unpack("<4s4H2IH", _bytes(stream, size - 22, 22))
    if mark != b"PK\x05\x06" or comment:
        raise FormatError("expected a ZIP as torch.save writes it; the file is truncated, or older than torch 1.6")
    if size >= 98 and _bytes(stream, size - 42, 4) == b"PK\x06\x07":
        (place,) = struct.unpack("<Q", _bytes(stream, size - 34, 8))
        if place > size - 98 or _bytes(stream, place, 4) != b"PK\x06\x06":
            raise FormatError("expected the place of a large ZIP's directory; the file is damaged")
        count, length, begin = struct.unpack("<3Q", _bytes(stream, place + 32, 24))
    return count, length, begin


def _record(stream: BinaryIO, raw: memoryview, place: int, end: int) -> tuple[str, Record, int]:
    """One entry of the directory: name, record, and the bytes the entry takes."""
    if len(raw) < 46 or bytes(raw[:4]) != b"PK\x01\x02":
        raise FormatError("expected an entry of a ZIP directory; the file is damaged")
    flags, method, checksum, packed, size, n, extra, note, offset = struct.unpack("<8x2H4x3I3H8xI", raw[:46])
    step = 46 + n + extra + note
    if step > len(raw):
        raise FormatError("expected a ZIP directory of whole entries; the file is damaged")
    size, packed, offset = _wide(raw[46 + n : 46 + n + extra], size, packed, offset)
    if method or packed != size or flags & 1:
        raise FormatError("expected records as they are, found a compressed or encrypted one; save it with torch.save")
    if offset + 30 > end:
        raise FormatError("expected a record before the directory; the file is damaged")
    local = _bytes(stream, offset, 30)
    length, more = struct.unpack("<2H", local[26:30])
    start = offset + 30 + length + more
    if local[:4] != b"PK\x03\x04" or start + size > end:
        raise FormatError("expected a record inside the file; it is truncated or damaged")
    name = bytes(raw[46 : 46 + n])
    if _bytes(stream, offset + 30, length) != name:
        raise FormatError("expected a record of the name its directory says; the file is damaged")
    places = [place + 16]
    if not flags & 8:
        places.append(offset + 14)
    elif start + size + 8 <= end:  # the checksum follows the bytes, with or without a mark
        marked = _bytes(stream, start + size, 4) == b"PK\x07\x08"
        places.append(start + size + (4 if marked else 0))
    return name.decode("utf-8", "replace"), Record(start, size, checksum, tuple(places)), step


def _wide(extra: memoryview, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The three numbers, those that do not fit 32 bits taken from the extra field of large ZIPs."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<2H", extra[at : at + 4])
        if kind == 1:
            wide = list(struct.unpack(f"<{length // 8}Q", extra[at + 4 : at + 4 + length // 8 * 8]))
            numbers = [wide.pop(0) if number == _FULL and wide else number for number in (size, packed, offset)]
            return numbers[0], numbers[1], numbers[2]
        at += 4 + length
    return size, packed, offset


def _info(file: Path, name: str, said: pickled.Stored, record: Record | None) -> TensorInfo:
    dtype = _DTYPES.get(said.kind)
    if dtype is None or record is None:
        raise FormatError(f"{name}: expected a record {said.key!r} of a known dtype, found {said.kind}")
    nbytes, first = math.prod(said.shape) * dtype.itemsize, said.start * dtype.itemsize
    if first + nbytes > record.size:
        raise FormatError(f"{name}: expected {first + nbytes} bytes in record {said.key!r}, found {record.size}")
    return TensorInfo(dtype, said.shape, file.name, record.start + first, nbytes)


def _flat(said: Any) -> list[tuple[str, Any]]:
    """The leaves of nested dictionaries by their path, with dots between; dictionaries may share what they hold."""
    found: list[tuple[str, Any]] = []
    todo: list[tuple[str, Any, int]] = [("", said, 0)]
    while todo:
        path, value, depth = todo.pop()
        if not isinstance(value, dict):
            found.append((path, value))
            continue
        if depth == _DEPTH or len(todo) + len(found) + len(value) > _MOST_LEAVES:
            raise FormatError(f"expected dictionaries at most {_DEPTH} deep, of at most {_MOST_LEAVES} entries")
        todo += [(f"{path}.{key}" if path else key, inner, depth + 1) for key, inner in value.items()]
    return found


def _mend(name: str, folder: Path) -> None:
    """Put right the checksums of records whose bytes were replaced."""
    for record in records(folder / name).values():
        checksum, left = 0, record.size
        with (folder / name).open("r+b") as stream:
            stream.seek(record.start)
            while left:
                chunk = stream.read(min(left, _CHUNK_BYTES))
                checksum = zlib.crc32(chunk, checksum)
                left -= len(chunk)
            if checksum != record.checksum:
                for place in record.places:
                    stream.seek(place)
                    stream.write(struct.pack("<I", checksum))


def _bytes(stream: BinaryIO, start: int, size: int) -> bytes:
    stream.seek(start)
    found = stream.read(size)
    if len(found) != size:
        raise FormatError("the file is truncated: download it again")
    return found
