"""Read the header of a GGUF file. Every count is checked against the file's size.

    "GGUF", version, counts of tensors and values, the values (key, type, value), the tensors (name, dimensions, type,
    offset), padding to the alignment, the tensors' bytes

Little-endian, versions 2 and 3. GGUF lists the innermost dimension first; shapes here are reversed.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forq.checkpoints import signature as _signature
from forq.errors import FormatError

_MAGIC, _VERSIONS, _MAX_DIMS, _MAX_SIZE = b"GGUF", (2, 3), 4, 1 << 40
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_MAX_ALIGNMENT = 1 << 16


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor: number of its type, shape with the innermost dimension last, and offset in the file."""

    name: str
    kind: int
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file.

    Attributes:
        values: values by key; arrays are lists.
        tensors: the tensors in file order.
        size: size of the file in bytes.
    """

    values: dict[str, Any]
    tensors: tuple[Placed, ...]
    size: int


def read(path: Path) -> Header:
    """Read a file's header, and nothing behind it.

    Raises:
        FormatError: the file is no GGUF, has another version or byte order, or a count exceeds its size.
    """
    _signature.check(path, "GGUF")
    size = path.stat().st_size
    if size < 24:
        raise FormatError(f"{path}: expected a GGUF file, found {size} bytes; download it again")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Reader(path, data, size).header()


class _Reader:
    """Reads values one after another; ``at`` is the current offset."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self.path, self.data, self.size, self.at = path, data, size, 0

    def header(self) -> Header:
        if self.take(4) != _MAGIC:
            raise FormatError(f"{self.path}: expected a file that begins with GGUF, found another")
        version = self.scalar("<I")
        if version not in _VERSIONS:
            why = "it is big-endian" if version >> 24 and not version & 0xFFFF else "convert it again"
            raise FormatError(f"{self.path}: expected GGUF version 2 or 3, found {version}; {why}")
        # 24 and 13 bytes are the least that a tensor and a value take, which bounds both counts.
        tensors, values = self.count("tensors", 24), self.count("values", 13)
        by_key: dict[str, Any] = {}
        for _ in range(values):
            key = self.text()
            if key in by_key:
                raise FormatError(f"{self.path}: expected each key once, found {key!r:.80} twice")
            by_key[key] = self.value(self.scalar("<I"), key)
        placed = [self.tensor() for _ in range(tensors)]
        align = by_key.get("general.alignment", 32)
        if type(align) is not int or not 1 <= align <= _MAX_ALIGNMENT:
            raise FormatError(f"{self.path}: expected an alignment of at most {_MAX_ALIGNMENT}, found {align!r:.40}")
        base = -(-self.at // align) * align
        for name, _, _, offset in placed:
            if offset % align or base + offset > self.size:
                raise FormatError(
                    f"{self.path}: {name}: expected an offset within {self.size} bytes, aligned to {align}, found "
                    f"{base + offset}; the file is truncated or damaged: download it again"
                )
        located = tuple(Placed(name, kind, shape, base + offset) for name, kind, shape, offset in placed)
        if len({tensor.name for tensor in located}) != len(located):
            raise FormatError(f"{self.path}: expected tensors of different names, found a name twice")
        return Header(by_key, located, self.size)

    def tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name, dims = self.text(), self.scalar("<I")
        if not 1 <= dims <= _MAX_DIMS:
            raise FormatError(f"{self.path}: {name:.80}: expected 1 to {_MAX_DIMS} dimensions, found {dims}")
        shape = tuple(self.scalar("<Q") for _ in range(dims))[::-1]
        if 0 in shape or math.prod(shape) > _MAX_SIZE:
            raise FormatError(f"{self.path}: {name:.80}: expected a plausible shape, found {shape}")
        return name, self.scalar("<I"), shape, self.scalar("<Q")

    def value(self, kind: int, key: str, inside: bool = False) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY or inside:
            raise FormatError(f"{self.path}: {key:.80}: expected a value of a known type, found type {kind}")
        each = self.scalar("<I")
        form = _SCALARS.get(each)
        length = self.count(key, 8 if form is None else struct.calcsize(form))
        if form is None:
            return [self.value(each, key, inside=True) for _ in range(length)]
        raw = self.take(length * struct.calcsize(form))
        return [item for (item,) in struct.iter_unpack(form, raw)]

    def count(self, what: str, least: int) -> int:
        number = self.scalar("<Q")
        if number * least > self.size - self.at:
            raise FormatError(
                f"{self.path}: expected no more {what:.80} than {self.size} bytes hold, found {number}; the file is "
                "truncated or damaged: download it again"
            )
        return int(number)

    def text(self) -> str:
        raw = self.take(self.scalar("<Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.path}: expected text at byte {self.at - len(raw)}, found {error}") from None

    def scalar(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def take(self, length: int) -> bytes:
        if length > self.size - self.at:
            raise FormatError(
                f"{self.path}: expected {length} bytes from byte {self.at} on, found {self.size - self.at}; the file "
                "is truncated or damaged: download it again"
            )
        raw = self.data[self.at : self.at + length]
        self.at += length
        return raw
