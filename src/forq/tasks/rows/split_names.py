"""Which split the name of a file or a folder names, and when several files are one split.

A split's name counts as a whole word anywhere in the name, in any capitals: ``Test.csv``, ``my_test_data.csv`` and
``dev-v1.1.json`` name a split, ``testing.csv`` and ``latest.csv`` name none. Words end where letters end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from forq.errors import DataError
from forq.tasks import Split

NAMES: Mapping[str, Split] = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}

_NO_LETTERS = re.compile(r"[\W\d_]+")
_PART = re.compile(r"(?P<front>.+?)[-_][0-9]+([-_]of[-_](?P<total>[0-9]+))?")


def split_of(path: Path) -> Split | None:
    """The split that a name names; None if it names none. The ending of a file is no part of its name.

    Raises:
        DataError: it names two splits.
    """
    name = path.name if path.is_dir() else path.stem
    found = list(dict.fromkeys(NAMES[word] for word in _NO_LETTERS.split(name.casefold()) if word in NAMES))
    if len(found) > 1:
        raise DataError(f"{path}: expected a name with a single split, found {' and '.join(found)}; rename it")
    return found[0] if found else None


def plain(path: Path) -> bool:
    """Whether the name of a file is that of a split and nothing else, but for the number of a part."""
    part = _PART.fullmatch(path.stem)
    return (part["front"] if part else path.stem).casefold() in NAMES


def require_single(split: Split, sources: Sequence[Path]) -> None:
    """Refuse several files or folders of a split, unless they are the numbered parts of one.

    ``test-00000-of-00002`` and ``test-00001-of-00002`` are parts, so are ``train_1`` and ``train_2``; train.csv and
    train.jsonl could be the same rows twice, dev_matched.tsv and dev_mismatched.tsv two different tests.

    Raises:
        DataError: there are several; the message names two.
    """
    wholes: dict[tuple[str, ...], Path] = {}
    for path in sources:
        part = None if path.is_dir() else _PART.fullmatch(path.stem)
        whole = (path.name,) if part is None else (part["front"].casefold(), part["total"] or "", path.suffix.lower())
        wholes.setdefault(whole, path)
    if len(wholes) > 1:
        one, other, *_ = wholes.values()
        raise DataError(
            f"{one.parent}: expected a single file of {split} data, found {one.name} and {other.name}; keep one of "
            f"them there, or join both in a sub-folder {split}"
        )
