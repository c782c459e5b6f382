"""Labels of the images under attack, whole numbers: in the order of the images, or by the names of their files.

In order: a ``.npy``, a ``.json`` list, or an ``.npz`` (its array ``labels``, or its only array). By name: a ``.json``
object, or a ``.csv`` with the columns file and label; it may name more files than there are. Labels in order need
names that have one order: ``10.png`` comes before ``2.png`` as a text, and behind it by number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forq.errors import DataError
from forq.tasks.images.npz import Npz
from forq.tasks.rows.json_rows import parsed
from forq.tasks.rows.table import content_of, records
from forq.tasks.rows.utf8 import text_of

_NUMBER = re.compile("[0-9]+")


def read(path: Path, names: Sequence[str] | None) -> NDArray[Any]:
    """The labels, not yet checked to be whole numbers.

    Args:
        names: the names of the images' files; None: they have none.

    Raises:
        DataError: the file cannot be read, a file has no label or two, a label by name has no names to go by, or labels
            in order belong to files that stand in another order by number.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a file with labels, found none")
    end = path.suffix.lower()
    if end == ".npz":
        return _listed(path, _of_npz(path), names)
    try:
        if end == ".npy":
            # Mapped first: it checks the size.
            return _listed(path, np.array(np.load(path, mmap_mode="r", allow_pickle=False)), names)
        if end == ".json":
            given = parsed(text_of(content_of(path), path))
            return np.array(_in_order(path, given, names)) if isinstance(given, dict) else _listed(path, given, names)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise DataError(f"{path}: labels cannot be read: {error}") from error
    if end == ".csv":
        return np.array(_in_order(path, _of_table(path), names))
    raise DataError(f"{path}: expected labels as .csv, .json, .npy or .npz, found {path.suffix or 'no ending'!r}")


def _listed(path: Path, labels: Any, names: Sequence[str] | None) -> NDArray[Any]:
    """Labels in the order of the images, which is that of the names as texts.

    Raises:
        DataError: numbers in the names have another order.
    """
    numbered = names or ()
    if len({_NUMBER.sub("0", name) for name in numbered}) > 1:  # names that differ in more than their numbers
        numbered = ()
    by_number = sorted(numbered, key=lambda name: list(map(int, _NUMBER.findall(name))))
    if odd := next((pair for pair in zip(numbered, by_number, strict=True) if pair[0] != pair[1]), None):
        raise DataError(
            f"{path}: expected names of images in a single order, found {odd[0]} before {odd[1]} by text and behind it "
            "by number; give labels by file name (a .csv with the columns file and label, or an object of JSON), or "
            "write the numbers with zeros in front"
        )
    return np.array(labels)


def _of_npz(path: Path) -> NDArray[Any]:
    arrays = Npz(path)
    if "labels" not in arrays and len(arrays) != 1:
        raise DataError(
            f"{path}: expected an array 'labels', or one array alone, found {arrays.said}; name it 'labels'"
        )
    return arrays["labels" if "labels" in arrays else next(iter(arrays))]


def _of_table(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for fields, where, _ in records(content_of(path), path):
        if not {"file", "label"} <= set(fields):
            raise DataError(f"{path}: expected the columns file and label, found {', '.join(fields)}")
        name, label = str(fields["file"]), str(fields["label"])
        if name in found:
            raise DataError(f"{where}: expected each file once, found {name!r:.80} twice; remove one")
        try:
            found[name] = int(label)
        except ValueError:
            raise DataError(f"{where}: expected a label that is a whole number, found {label!r:.80}") from None
    return found


def _in_order(path: Path, by_name: Mapping[str, Any], names: Sequence[str] | None) -> list[Any]:
    if names is None:
        raise DataError(f"{path}: labels by file name need a folder of PNG files; for an .npz, give a list")
    missing = [name for name in names if name not in by_name]
    if missing:
        raise DataError(f"{path}: no label for {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    return [by_name[name] for name in names]
