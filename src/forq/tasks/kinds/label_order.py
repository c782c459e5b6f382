"""The order of the labels that are found in data, and so the numbers of their classes."""

from __future__ import annotations

import re
from collections.abc import Collection
from decimal import Decimal

from forq.errors import DataError

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_WHOLE = re.compile(r"-?[0-9]{1,18}")


def in_order(names: Collection[str]) -> list[str]:
    """Different labels in their order: by value if all of them are numbers.

    Otherwise whole numbers come first, by value, and the other labels follow by the alphabet.

    Raises:
        DataError: two labels are the same number in different spellings.

    Example:
        >>> in_order(["10.0", "2.0", "-1"])
        ['-1', '2.0', '10.0']
    """
    values = {name: Decimal(name) for name in sorted(names) if _NUMBER.fullmatch(name)}
    spellings: dict[Decimal, str] = {}
    for name, value in values.items():
        if (other := spellings.setdefault(value, name)) != name:
            raise DataError(
                f"labels: expected a single spelling of each number, found {other!r} and {name!r}; spell it alike in "
                "all rows, or list the labels in a file, task.labels=FILE"
            )
    if len(values) == len(names):
        return sorted(names, key=values.__getitem__)
    return sorted(names, key=lambda name: (0, int(name), "") if _WHOLE.fullmatch(name) else (1, 0, name))
