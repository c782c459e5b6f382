"""Images with classes from files: class sub-folders, images listed in a CSV, or arrays in an .npz.

    folder/CLASS/image.png                        sub-folders are classes
    folder/train/CLASS/…, validation/, test/      the same for each split
    folder/labels.csv or file.csv                 columns file and label, and perhaps split
    file.npz                                      images [N, H, W, C] uint8 and labels [N]; train_images, train_labels,
                                                  validation_images, … for several splits

Images are uint8 levels. Labels are texts or whole numbers. Splits may be written in any capitals. Every file of a class
is read or refused by its name.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.kinds import image_arrays
from forq.tasks.kinds.image_files import ENDS, images_in, litter, opened
from forq.tasks.rows.split_names import NAMES
from forq.tasks.rows.table import content_of, records

_GREY = ("1", "L")
"""Pillow's modes of grey images."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """An image and its label.

    Attributes:
        where: its file, or its place in an array, for messages.
        label: as the data gives it.
        levels: uint8 [H, W, C]; None: to be read from the file.
    """

    where: str
    label: str
    levels: NDArray[np.uint8] | None = None

    def picture(self) -> Image.Image:
        """The image as the data has it: in grey (mode L) or in RGB.

        Raises:
            DataError: see :func:`forq.tasks.kinds.image_files.opened`.
        """
        if self.levels is not None:
            return Image.fromarray(self.levels[:, :, 0] if self.levels.shape[2] == 1 else self.levels)
        with opened(self.where) as picture:
            return picture.convert("L" if picture.mode in _GREY else "RGB")


def read(data: Path) -> dict[Split, list[Labelled]]:
    """The images of each split; all are training images if the data has no splits.

    Raises:
        DataError: there are none, or a file cannot be used.
    """
    if data.suffix.lower() == ".npz":
        found = _arrays(data)
    elif data.suffix.lower() == ".csv":
        found = _table(data)
    elif data.is_dir():
        found = _table(data / "labels.csv") if (data / "labels.csv").is_file() else _folder(data)
    else:
        raise DataError(f"{data}: expected a folder of class sub-folders, a .csv of images or an .npz, found none")
    if not found.get("train"):
        raise DataError(f"{data}: expected training images, found none in {', '.join(found) or 'it'}")
    return found


def _folder(folder: Path) -> dict[Split, list[Labelled]]:
    names = [path.name.lower() for path in _folders(folder)]
    if "train" not in names and not (names and set(names) <= set(NAMES)):
        return {"train": list(_classes(folder))}
    found: dict[Split, list[Labelled]] = {}
    for path in _folders(folder):
        if (split := NAMES.get(path.name.lower())) is None:
            raise DataError(f"{path}: expected splits among {', '.join(NAMES)} beside train, found {path.name!r}")
        if split in found:
            raise DataError(f"{path}: expected a single folder of {split} images, found two; join them")
        found[split] = list(_classes(path))
    return found


def _folders(folder: Path) -> list[Path]:
    """The sub-folders, by name. An image beside them has no class, and is refused."""
    inner = [path for path in sorted(folder.iterdir()) if not litter(path)]
    folders = [path for path in inner if path.is_dir()]
    for path in inner if folders else ():
        if path.suffix.lower() in ENDS and path not in folders:
            raise DataError(f"{path}: expected an image in a folder of its class, found it beside them; move it")
    return folders


def _classes(folder: Path) -> Iterator[Labelled]:
    inner = _folders(folder)
    if not inner:
        raise DataError(
            f"{folder}: expected a sub-folder for each class, or labels.csv with the columns file and label, found "
            "neither"
        )
    for path in inner:
        for file in images_in(path):
            yield Labelled(str(file), path.name)


def _table(path: Path) -> dict[Split, list[Labelled]]:
    found: dict[Split, list[Labelled]] = {}
    lines: dict[str, str] = {}
    for fields, where in records(content_of(path), path.with_suffix(".csv")):
        if not {"file", "label"} <= set(fields):
            raise DataError(f"{path}: expected the columns file and label, found {', '.join(fields)}")
        name, label = str(fields["file"]), str(fields["label"]).strip()
        split = str(fields.get("split", "")).strip().lower() or "train"
        if split not in NAMES or not label:
            raise DataError(f"{where}: expected a label, and a split among {', '.join(NAMES)}, found {fields!r:.120}")
        file = path.parent / name
        if not file.is_file() or not file.resolve().is_relative_to(path.parent.resolve()):
            raise DataError(f"{where}: expected an image in {path.parent}, found {name!r:.80}")
        key = os.path.normpath(name)
        if key in lines:
            raise DataError(f"{where}: expected each image once, found {name!r:.80} in {lines[key]} too; remove one")
        lines[key] = where
        found.setdefault(NAMES[split], []).append(Labelled(str(file), label))
    return found


def _arrays(path: Path) -> dict[Split, list[Labelled]]:
    return {
        split: [
            Labelled(f"{where}[{place}]", str(label), image)
            for place, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
        for split, (where, images, labels) in image_arrays.read(path).items()
    }
