"""Labels of the images under attack, whole numbers: in the order of the images, or by the names of their files.

In order: a ``.npy``, a ``.json`` list, or an ``.npz`` (its array ``labels``, or its only array). By name: a ``.json``
object, or a ``.csv`` with the columns file and label; it may name more files than there are.
"""

from __future__ import annotations

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


def read(path: Path, names: Sequence[str] | None) -> NDArray[Any]:
    """The labels, not yet checked to be whole numbers.

    Args:
        names: the names of the images' files; None: they have none.

    Raises:
        DataError: the file cannot be read, a file has no label or two, or a label by name has no names to go by.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a file with labels, found none")
    end = path.suffix.lower()
    if end == ".npz":
        return _of_npz(path)
    try:
        if end == ".npy":
            return np.array(np.load(path, mmap_mode="r", allow_pickle=False))  # mapped first: it checks the size
        if end == ".json":
            given = parsed(text_of(content_of(path), path))
            return np.array(_in_order(path, given, names) if isinstance(given, dict) else given)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise DataError(f"{path}: labels cannot be read: {error}") from error
    if end == ".csv":
        return np.array(_in_order(path, _of_table(path), names))
    raise DataError(f"{path}: expected labels as .csv, .json, .npy or .npz, found {path.suffix or 'no ending'!r}")


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
