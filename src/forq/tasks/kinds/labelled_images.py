"""Images with classes from files: class sub-folders, images listed in a CSV, or arrays in an .npz.

    folder/CLASS/image.png                        sub-folders are classes
    folder/train/CLASS/…, validation/, test/      the same for each split
    folder/labels.csv or file.csv                 columns file and label, and perhaps split; without that column, the
                                                  folders train, validation and test in a file's name count
    file.npz                                      images [N, H, W, C] uint8 and labels [N]; train_images, train_labels,
                                                  validation_images, … for several splits

Images are uint8 levels. Labels are texts or whole numbers. Splits may be written in any capitals. Every file of a class
is read or refused by its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.kinds import image_arrays
from forq.tasks.kinds.image_files import images_in, opened
from forq.tasks.kinds.image_list import folders_in, listed, split_folders

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
        if (data / "labels.csv").is_file():
            found = _table(data / "labels.csv")
        else:
            found = {split: list(_classes(folder)) for split, folder in split_folders(data).items()}
    else:
        raise DataError(f"{data}: expected a folder of class sub-folders, a .csv of images or an .npz, found none")
    if not found.get("train"):
        raise DataError(f"{data}: expected training images, found none in {', '.join(found) or 'it'}")
    return found


def _classes(folder: Path) -> Iterator[Labelled]:
    inner = folders_in(folder)
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
    for row in listed(path, "file"):
        label = str(row.fields.get("label", "")).strip()
        if not label:
            raise DataError(
                f"{row.where}: expected the columns file and label, a label in each, found {row.fields!r:.120}"
            )
        found.setdefault(row.split, []).append(Labelled(str(row.file), label))
    return found


def _arrays(path: Path) -> dict[Split, list[Labelled]]:
    return {
        split: [
            Labelled(f"{where}[{place}]", str(label), image)
            for place, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
        for split, (where, images, labels) in image_arrays.read(path).items()
    }
