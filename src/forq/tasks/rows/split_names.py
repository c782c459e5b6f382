"""Which split the name of a file or a folder names, and when several files are one split.

A split's name counts as a whole word anywhere in the name, in any capitals: ``Test.csv``, ``my_test_data.csv`` and
``dev-v1.1.json`` name a split, ``latest.csv`` names none. Words end where letters end. The names are those of
``datasets``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from forq.errors import DataError
from forq.tasks import Split

NAMES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_SPARE = ("training", "testing", "eval", "evaluation")
"""Names that a data set may use beside the usual one for rows of another purpose."""

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


def of_data_set(names: Iterable[str]) -> dict[str, Split]:
    """The split of each name in a data set; names of no split are left out.

    ``eval`` and the like count where their split has no other name: beside ``test`` they are rows of another purpose.

    Example:
        >>> of_data_set(["train", "eval", "extra"]), of_data_set(["train", "test", "eval"])
        ({'train': 'train', 'eval': 'test'}, {'train': 'train', 'test': 'test'})
    """
    known = [name for name in names if name in NAMES]
    usual = {NAMES[name] for name in known if name not in _SPARE}
    return {name: NAMES[name] for name in known if name not in _SPARE or NAMES[name] not in usual}


def plain(path: Path) -> bool:
    """Whether the name of a file or folder is that of a split and nothing else, but for the number of a part."""
    name = path.name if path.is_dir() else path.stem
    part = _PART.fullmatch(name)
    return (part["front"] if part else name).casefold() in NAMES


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
