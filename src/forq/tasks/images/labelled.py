"""Images with classes from files: class sub-folders, images listed in a CSV, or arrays in an .npz.

    folder/CLASS/image.png                        sub-folders are classes
    folder/train/CLASS/…, validation/, test/      the same for each split
    folder/labels.csv or file.csv                 columns file and label, and perhaps split; without that column, the
                                                  folders train, validation and test in a file's name count
    folder/metadata.csv or metadata.jsonl         the same with file_name and label, as in the imagefolder of datasets,
                                                  which reads no class folders beside it; or one in each split's folder
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
from forq.tasks.images import arrays
from forq.tasks.images.files import images_in, opened
from forq.tasks.images.listing import folders_in, listed, split_folders

_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Lists of the imagefolder of ``datasets``."""

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
            DataError: see :func:`forq.tasks.images.files.opened`.
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
        found = _folder(data)
    else:
        raise DataError(f"{data}: expected a folder of class sub-folders, a .csv of images or an .npz, found none")
    if not found.get("train"):
        raise DataError(f"{data}: expected training images, found none in {', '.join(found) or 'it'}")
    return found


def _folder(data: Path) -> dict[Split, list[Labelled]]:
    if (data / "labels.csv").is_file():
        return _table(data / "labels.csv")
    if (own := _metadata(data)) is not None:
        return _table(own, "file_name")
    found: dict[Split, list[Labelled]] = {}
    for split, folder in split_folders(data).items():
        own = _metadata(folder)
        listed = [] if own is None else [row for some in _table(own, "file_name").values() for row in some]
        found[split] = listed or list(_classes(folder))
    return found


def _metadata(folder: Path) -> Path | None:
    """The list of an imagefolder; None if it has none.

    Raises:
        DataError: it has several, or one that is not read.
    """
    found = [folder / name for name in _METADATA if (folder / name).is_file()]
    if len(found) > 1 or (found and found[0].suffix == ".parquet"):
        raise DataError(
            f"{folder}: expected a single list of its images, metadata.csv or metadata.jsonl, found "
            f"{' and '.join(path.name for path in found)}; convert it, or move it elsewhere"
        )
    return found[0] if found else None


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


def _table(path: Path, name: str = "file") -> dict[Split, list[Labelled]]:
    found: dict[Split, list[Labelled]] = {}
    for row in listed(path, name):
        label = str("" if (given := row.fields.get("label")) is None else given).strip()
        if not label:
            raise DataError(
                f"{row.where}: expected the columns {name} and label, a label in each, found {row.fields!r:.120}; add "
                f"it, or move {path.name} elsewhere if sub-folders are the classes"
            )
        found.setdefault(row.split, []).append(Labelled(str(row.file), label))
    return found


def _arrays(path: Path) -> dict[Split, list[Labelled]]:
    return {
        split: [
            Labelled(f"{where}[{place}]", str(label), image)
            for place, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
        for split, (where, images, labels) in arrays.read(path).items()
    }
