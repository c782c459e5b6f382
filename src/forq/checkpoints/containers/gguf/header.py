"""The header of a GGUF file: its values and where its tensors lie, every count checked against the file's size.

    "GGUF", version, counts of tensors and values, the values (key, type, value), the tensors (name, dimensions, type,
    offset), padding to the alignment, the tensors' bytes

Little-endian, versions 2 and 3. A tensor's first dimension is its innermost: shapes here are turned round.
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
    """One tensor: its type's number, its shape with the innermost dimension last, its first byte in the file."""

    name: str
    kind: int
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says before its tensors begin.

    Attributes:
        values: by key; arrays as lists.
        tensors: in the order of the file.
        size: of the file in bytes.
    """

    values: dict[str, Any]
    tensors: tuple[Placed, ...]
    size: int


def read(path: Path) -> Header:
    """Read a file's header; nothing behind it is touched.

    Raises:
        FormatError: it is no GGUF, of another version or byte order, or says what the file cannot hold.
    """
    _signature.check(path, "GGUF")
    size = path.stat().st_size
    if size < 24:
        raise FormatError(f"{path}: expected a GGUF file, found {size} bytes; download it again")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Reader(path, data, size).header()


class _Reader:
    """A place in the file that moves on as values are read."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self.path, self.data, self.size, self.at = path, data, size, 0

    def header(self) -> Header:
        if self.take(4) != _MAGIC:
            raise FormatError(f"{self.path}: expected a file that begins with GGUF, found another")
        version = self.scalar("<I")
        if version not in _VERSIONS:
            why = "its bytes are in the other order" if version >> 24 and not version & 0xFFFF else "convert it anew"
            raise FormatError(f"{self.path}: expected GGUF version 2 or 3, found {version}; {why}")
        # The least a tensor and a value can take: a count of either can ask for no more than the file has.
        tensors, values = self.count("tensors", 24), self.count("values", 13)
        held: dict[str, Any] = {}
        for _ in range(values):
            key = self.text()
            if key in held:
                raise FormatError(f"{self.path}: expected each key once, found {key!r:.80} twice")
            held[key] = self.value(self.scalar("<I"), key)
        placed = [self.tensor() for _ in range(tensors)]
        align = held.get("general.alignment", 32)
        if type(align) is not int or not 1 <= align <= _MAX_ALIGNMENT:
            raise FormatError(f"{self.path}: expected an alignment of at most {_MAX_ALIGNMENT}, found {align!r:.40}")
        base = -(-self.at // align) * align
        for name, _, _, offset in placed:
            if offset % align or base + offset > self.size:
                raise FormatError(
                    f"{self.path}: {name}: expected a place within {self.size} bytes, aligned to {align}, found "
                    f"{base + offset}; the file is truncated or damaged: download it again"
                )
        found = tuple(Placed(name, kind, shape, base + offset) for name, kind, shape, offset in placed)
        if len({one.name for one in found}) != len(found):
            raise FormatError(f"{self.path}: expected tensors of different names, found one twice")
        return Header(held, found, self.size)

    def tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name, dims = self.text(), self.scalar("<I")
        if not 1 <= dims <= _MAX_DIMS:
            raise FormatError(f"{self.path}: {name:.80}: expected 1 to {_MAX_DIMS} dimensions, found {dims}")
        shape = tuple(self.scalar("<Q") for _ in range(dims))[::-1]
        if 0 in shape or math.prod(shape) > _MAX_SIZE:
            raise FormatError(f"{self.path}: {name:.80}: expected a shape that can be, found {shape}")
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
        return [one for (one,) in struct.iter_unpack(form, raw)]

    def count(self, what: str, least: int) -> int:
        found = self.scalar("<Q")
        if found * least > self.size - self.at:
            raise FormatError(
                f"{self.path}: expected no more {what:.80} than {self.size} bytes hold, found {found}; the file is "
                "truncated or damaged: download it again"
            )
        return int(found)

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
