"""Images with classes from files: class sub-folders, images listed in a CSV, or arrays in an .npz.

    folder/CLASS/image.png                        sub-folders are classes
    folder/train/CLASS/…, validation/, test/      the same for each split
    folder/labels.csv or file.csv                 columns file and label, and perhaps split
    file.npz                                      images [N, H, W, C] uint8 and labels [N]; train_images, train_labels,
                                                  validation_images, … for several splits

Images are uint8 levels. Labels are texts or whole numbers.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from forq.errors import DataError
from forq.tasks import Split

ENDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_MOST_PIXELS = 100_000_000


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

    def picture(self, channels: int) -> Image.Image:
        """The image, in grey or in RGB.

        Raises:
            DataError: it cannot be read, or is too large.
        """
        mode = "L" if channels == 1 else "RGB"
        if self.levels is not None:
            grey = self.levels.shape[2] == 1
            return Image.fromarray(self.levels[:, :, 0] if grey else self.levels).convert(mode)
        try:
            with Image.open(self.where) as opened:
                if opened.width * opened.height > _MOST_PIXELS:
                    raise DataError(
                        f"{self.where}: expected at most {_MOST_PIXELS:,} pixels, found {opened.size}; make it smaller"
                    )
                return ImageOps.exif_transpose(opened).convert(mode)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{self.where}: expected an image that Pillow can read, found {error}; repair or remove it"
            ) from error


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


def _folder(folder: Path) -> dict[Split, list[Labelled]]:
    inner = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}
    if (folder / "labels.csv").is_file():
        return _table(folder / "labels.csv")
    if "train" in inner:
        found: dict[Split, list[Labelled]] = {}
        for name, path in inner.items():
            if name not in _SPLITS:
                raise DataError(f"{path}: expected splits among {', '.join(_SPLITS)} beside train, found {name!r}")
            found[_SPLITS[name]] = list(_classes(path))
        return found
    return {"train": list(_classes(folder))}


def _classes(folder: Path) -> Iterator[Labelled]:
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not inner:
        raise DataError(
            f"{folder}: expected a sub-folder for each class, or labels.csv with the columns file and label, found "
            "neither"
        )
    for path in inner:
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in ENDS:
                yield Labelled(str(file), path.name)


def _table(path: Path) -> dict[Split, list[Labelled]]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    found: dict[Split, list[Labelled]] = {}
    with path.open(newline="", encoding="utf-8") as stream:
        try:
            rows = csv.DictReader(stream)
            fields = rows.fieldnames or ()
            if not {"file", "label"} <= set(fields):
                raise DataError(f"{path}: expected the columns file and label, found {', '.join(fields) or 'none'}")
            for number, row in enumerate(rows, 2):
                split = row.get("split") or "train"
                file = path.parent / str(row["file"])
                if split not in _SPLITS or not row["label"]:
                    raise DataError(f"{path}, line {number}: expected a label, and a split among {', '.join(_SPLITS)}")
                if not file.is_file() or not file.resolve().is_relative_to(path.parent.resolve()):
                    raise DataError(
                        f"{path}, line {number}: expected an image in {path.parent}, found {row['file']!r:.80}"
                    )
                found.setdefault(_SPLITS[split], []).append(Labelled(str(file), row["label"].strip()))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}: expected a table in UTF-8, found {error}") from error
    return found


def _arrays(path: Path) -> dict[Split, list[Labelled]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile, AttributeError, TypeError, EOFError) as error:
        raise DataError(f"{path}: expected an .npz of plain arrays, found {error}") from error
    found: dict[Split, list[Labelled]] = {}
    for front, split in (("", "train"), *((f"{name}_", split) for name, split in _SPLITS.items())):
        if f"{front}images" in arrays:
            if f"{front}labels" not in arrays:
                raise DataError(f"{path}: expected an array {front}labels beside {front}images, found none")
            where = f"{path}: {front}images"
            found[split] = _rows(where, arrays[f"{front}images"], arrays[f"{front}labels"])
    if not found:
        raise DataError(f"{path}: expected the arrays images and labels, found {', '.join(arrays) or 'none'}")
    return found


def _rows(where: str, images: NDArray[Any], labels: NDArray[Any]) -> list[Labelled]:
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise DataError(
            f"{where}: expected uint8 levels [N, H, W], [N, H, W, 1] or [N, H, W, 3], found {images.dtype} "
            f"{list(images.shape)}"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{where}: expected {len(images)} labels, whole numbers or texts, found {labels.dtype} {list(labels.shape)}"
        )
    return [
        Labelled(f"{where}[{place}]", str(label), image)
        for place, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def indices(
    rows: Mapping[Split, Sequence[Labelled]], count: int | None, named: Sequence[str], order: str | None
) -> tuple[tuple[str, ...], dict[Split, list[int]]]:
    """The names of the classes in the order of the network's outputs, and the class of each image.

    Args:
        count: number of outputs, if it is known.
        named: names in the network's own configuration; empty if it has none.
        order: names in the order of the outputs, separated by commas, as the user gives them.

    Raises:
        DataError: a label is no class of the network.
    """
    seen = sorted({row.label for some in rows.values() for row in some})
    if order is not None:
        names = [name.strip() for name in order.split(",")]
    elif named and set(seen) <= set(named):
        names = list(named)
    elif all(label.isascii() and label.isdigit() and len(label) < 7 for label in seen):
        # Labels that are numbers are the numbers of outputs.
        names = list(map(str, range(count or max(map(int, seen)) + 1)))
        rows = {split: [Labelled(row.where, str(int(row.label))) for row in some] for split, some in rows.items()}
    elif count is None or len(seen) == count:
        names = seen
    else:
        raise DataError(
            f"expected labels of {count} classes, found {len(seen)}: {', '.join(seen[:8])}; give the classes in the "
            "order of the network's outputs: --set task.labels=CAT,DOG,…"
        )
    if len(set(names)) != len(names) or (count is not None and len(names) != count) or len(names) < 2:
        raise DataError(f"expected {count or 'two or more'} different classes, found {len(names)}: {names!r:.120}")
    places = {name: place for place, name in enumerate(names)}
    for some in rows.values():
        for row in some:
            if row.label not in places:
                raise DataError(f"{row.where}: expected a class among {', '.join(names[:12])}, found {row.label!r:.40}")
    return tuple(names), {split: [places[row.label] for row in some] for split, some in rows.items()}
