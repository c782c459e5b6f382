"""Strict JSON for data files: each value has one meaning, and each string can be encoded.

Python's reader accepts more than JSON allows. It keeps the last of two equal keys, accepts ``NaN``,
and turns half a surrogate pair into a string that no file can hold. Each of these would silently
change or lose a row.
"""

from __future__ import annotations

import json
import math
import re

from forq.errors import DataError

_DEPTH = 100
"""Maximum depth of nested lists and objects."""

_DEEP = f"more than {_DEPTH} lists and objects inside each other"

# An escape that may be half of a pair. The text itself was decoded from UTF-8, so it has no lone halves.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def parsed(text: str) -> object:
    """The value of a JSON text.

    Raises:
        ValueError: the text is not strict JSON: it is not JSON, has a key twice in an
            object, NaN or an infinite number, half a surrogate pair, or more than 100 levels.
    """
    value = decoded(text)
    if suspect(text):
        check(value)
    return value


def decoded(text: str) -> object:
    """The value of a JSON text, without a check of its strings and depth.

    Raises:
        ValueError: the text is not JSON, has a key twice in an object, or has NaN or an infinite number.
    """
    try:
        value: object = _DECODER.decode(text)
        return value
    except RecursionError:
        raise ValueError(_DEEP) from None


def suspect(text: str) -> bool:
    """Whether the value of a JSON text could fail :func:`check`; this test is faster than the check."""
    return _HALF.search(text) is not None or text.count("[") + text.count("{") > _DEPTH


def check(value: object, depth: int = 0) -> None:
    """Check the strings and the depth of a value.

    Raises:
        ValueError: a string or a key contains half a surrogate pair; or there are more than 100 levels.
    """
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict | list):
        if depth == _DEPTH:
            raise ValueError(_DEEP)
        for inner in value.values() if isinstance(value, dict) else value:
            check(inner, depth + 1)
        for key in value if isinstance(value, dict) else ():
            if isinstance(key, str):
                _check_text(key)


def check_row(row: object, where: str) -> None:
    """The same, with the row's place in the error.

    Raises:
        DataError: see :func:`check`.
    """
    try:
        check(row)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        near = ascii(text[max(0, error.start - 20) : error.start + 20])
        raise ValueError(
            f"half of a surrogate pair, {half}, at character {error.start} of {near}; it is no character on its own: "
            "remove it, or write both halves"
        ) from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"the key {twice!a} stands twice in one object; remove or rename one")
    return values


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON; leave the field out, or write null")


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)
