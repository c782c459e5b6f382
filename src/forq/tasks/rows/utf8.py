"""Decode a data file: UTF-8 with or without a byte order mark; every other encoding is refused."""

from __future__ import annotations

from pathlib import Path

from forq.errors import DataError

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def text_of(content: bytes, file: Path) -> str:
    """The text of a whole file, without a byte order mark.

    Raises:
        DataError: the file is not UTF-8, or contains a zero byte (file, line and byte).
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The error's position does not count a byte order mark.
        start = error.start + len(content) - len(error.object)
        where = _place(content, start)
        raise DataError(f"{file}, {where}: not UTF-8 at {_byte(content, start)}; {advice(content)}") from error
    if (start := content.find(b"\0")) >= 0:
        raise DataError(f"{file}, {_place(content, start)}: a zero byte at {_byte(content, start)}; {advice(content)}")
    return text


def advice(content: bytes) -> str:
    """What to do with a file that is not UTF-8, by its first bytes."""
    if content.startswith(_UTF16) or content[1:2] == b"\0" or content[:1] == b"\0":
        return "it looks like UTF-16: convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)"
    return "convert it to UTF-8 first"


def _place(content: bytes, at: int) -> str:
    return f"line {content.count(bytes([10]), 0, at) + 1}"


def _byte(content: bytes, at: int) -> str:
    return f"byte {at - content.rfind(bytes([10]), 0, at) - 1} of the line (byte {at} of the file)"
