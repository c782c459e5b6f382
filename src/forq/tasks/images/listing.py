"""Where images lie: the sub-folders of splits, and lists of images (labels.csv, metadata.jsonl)."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.images.files import ENDS, litter
from forq.tasks.rows.split_names import NAMES
from forq.tasks.rows.table import content_of, records


class Listed(NamedTuple):
    """An image of a list: its file, its split, the other fields of its row, and its place for messages."""

    file: Path
    split: Split
    fields: Mapping[str, object]
    where: str


def listed(path: Path, name: str) -> Iterator[Listed]:
    """The images of a list, a table of :mod:`forq.tasks.rows.table`.

    A row's split is its field ``split``, or train if that is empty. In a list without this field it is the first folder
    of the file's name, if that has the name of a split; otherwise it is train.

    Args:
        name: the field with the file's name, from the folder of the list.

    Raises:
        DataError: a row cannot be read, has no file or an unknown split, or an image is listed twice (file and line).
    """
    places: dict[str, str] = {}
    for fields, where, _ in records(content_of(path), path):
        if name not in fields:
            raise DataError(f"{where}: expected the field {name}, found {', '.join(fields)}")
        given = str(fields[name])
        file = path.parent / given
        if not file.is_file() or not file.resolve().is_relative_to(path.parent.resolve()):
            raise DataError(f"{where}: expected an image in {path.parent}, found {given!r:.80}")
        key = os.path.normpath(given)
        if key in places:
            raise DataError(f"{where}: expected each image once, found {given!r:.80} in {places[key]} too; remove one")
        places[key] = where
        yield Listed(file, _split(fields, Path(key), where), fields, where)


def _split(fields: Mapping[str, object], name: Path, where: str) -> Split:
    if "split" not in fields:
        first = name.parts[0] if len(name.parts) > 1 else ""
        return NAMES.get(first.casefold(), "train")
    told = str(fields["split"] or "").strip().casefold() or "train"
    if told not in NAMES:
        raise DataError(f"{where}: expected a split among {', '.join(NAMES)}, found {told!r:.80}")
    return NAMES[told]


def split_folders(folder: Path) -> dict[Split, Path]:
    """The folder of each split: sub-folders that have the names of splits and no others; or all is training.

    Raises:
        DataError: a sub-folder beside them has another name, a split has two, or an image lies beside them.
    """
    names = [path.name.casefold() for path in folders_in(folder)]
    if "train" not in names and not (names and set(names) <= set(NAMES)):
        return {"train": folder}
    found: dict[Split, Path] = {}
    for path in folders_in(folder):
        if (split := NAMES.get(path.name.casefold())) is None:
            raise DataError(f"{path}: expected splits among {', '.join(NAMES)} beside train, found {path.name!r}")
        if split in found:
            raise DataError(f"{path}: expected a single folder of {split} images, found two; join them")
        found[split] = path
    return found


def folders_in(folder: Path) -> list[Path]:
    """The sub-folders, by name.

    Raises:
        DataError: an image lies beside them; it would belong to none.
    """
    inner = [path for path in sorted(folder.iterdir()) if not litter(path)]
    folders = [path for path in inner if path.is_dir()]
    for path in inner if folders else ():
        if path.suffix.lower() in ENDS and path not in folders:
            raise DataError(f"{path}: expected images in {folders[0].name} and the like, found one beside it; move it")
    return folders
