"""The fields of a row, with a record of those that were read, so that unread fields can be reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Fields(Mapping[str, object]):
    """A row's fields.

    Example:
        >>> fields = Fields({"text": "a", "id": 3})
        >>> fields["text"], fields.unread()
        ('a', {'id'})
    """

    def __init__(self, values: Mapping[str, object], prefix: str = "") -> None:
        self._values, self._prefix = values, prefix
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        self._read.add(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def unread(self) -> set[str]:
        """Names of the fields that were not read, with the prefix in front."""
        return {f"{self._prefix}{name}" for name in self._values if name not in self._read}
