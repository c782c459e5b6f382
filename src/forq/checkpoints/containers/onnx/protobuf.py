"""Read the wire format of protocol buffers field by field. Every length is checked; no value is copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forq.errors import FormatError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types; 3 and 4 (groups) are obsolete and refused."""

_FIXED = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    Attributes:
        number, wire: field number and wire type.
        value: the value of a varint; 0 for other wire types.
        whole: offset at which the field begins, with its tag.
        start, stop: range of its contents, without tag and length.
    """

    number: int
    wire: int
    value: int
    whole: int
    start: int
    stop: int


def fields(data: memoryview, start: int, stop: int) -> Iterator[Field]:
    """The fields of the message between two offsets.

    Raises:
        FormatError: a field reaches beyond the message, or its wire type is unknown.
    """
    at = start
    while at < stop:
        whole = at
        tag, at = varint(data, at, stop)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise FormatError(f"byte {whole}: expected a field, found number 0; the file is damaged: download it again")
        value = 0
        if wire == VARINT:
            begin = at
            value, at = varint(data, at, stop)
            end = at
        elif wire == BYTES:
            length, begin = varint(data, at, stop)
            end = begin + length
        elif wire in _FIXED:
            begin, end = at, at + _FIXED[wire]
        else:
            raise FormatError(f"byte {whole}: expected a wire type 0, 1, 2 or 5, found {wire}; the file is damaged")
        if end > stop:
            raise FormatError(
                f"byte {whole}: expected a field that ends by byte {stop}, found one of {end - begin} bytes; the file "
                "is truncated or damaged: download it again"
            )
        yield Field(number, wire, value, whole, begin, end)
        at = end


def varint(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    """Read an unsigned number of seven bits a byte. Returns the number and the offset behind it."""
    value = 0
    for place in range(min(_LONGEST_VARINT, stop - at)):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value & (1 << 64) - 1, at + place + 1
    raise FormatError(f"byte {at}: expected a number of at most {_LONGEST_VARINT} bytes, found none that ends")


def varints(data: memoryview, field: Field) -> list[int]:
    """Values of a repeated number, packed or single."""
    if field.wire == VARINT:
        return [field.value]
    values, at = [], field.start
    while at < field.stop:
        value, at = varint(data, at, field.stop)
        values.append(value)
    return values


def text(data: memoryview, field: Field) -> str:
    """A field's contents as text.

    Raises:
        FormatError: the contents are not UTF-8, or the field has another wire type.
    """
    if field.wire != BYTES:
        raise FormatError(f"byte {field.whole}: expected text, found wire type {field.wire}; the file is damaged")
    try:
        return bytes(data[field.start : field.stop]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"byte {field.start}: expected text, found {error}; the file is damaged") from None


def length_prefix(number: int, length: int) -> bytes:
    """Tag and length that precede a field of ``length`` bytes."""
    return _encoded(number << 3 | BYTES) + _encoded(length)


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
