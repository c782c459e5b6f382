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
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.kinds.image_files import ENDS, opened

_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_MOST_BYTES = 16 << 30
"""Most bytes of an array."""


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
        with opened(self.where) as picture:
            return picture.convert(mode)


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
            if _SPLITS[name] in found:
                raise DataError(f"{path}: expected a single folder of {_SPLITS[name]} images, found two; join them")
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
    found: dict[Split, list[Labelled]] = {}
    try:
        with zipfile.ZipFile(path) as file:
            names = {entry.filename.removesuffix(".npy"): entry for entry in file.infolist()}
            for front, split in (("", "train"), *((f"{name}_", split) for name, split in _SPLITS.items())):
                if f"{front}images" not in names:
                    continue
                if f"{front}labels" not in names:
                    raise DataError(f"{path}: expected an array {front}labels beside {front}images, found none")
                if split in found:
                    raise DataError(f"{path}: expected a single array of {split} images, found {front}images too")
                images, labels = (_array(path, file, names[f"{front}{kind}"]) for kind in ("images", "labels"))
                found[split] = _rows(f"{path}: {front}images", images, labels)
    except (ValueError, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(f"{path}: expected an .npz of plain arrays, found {error}") from error
    if not found:
        raise DataError(f"{path}: expected the arrays images and labels, found {', '.join(names) or 'none'}")
    return found


def _array(path: Path, file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """An array of an .npz, read once its header is known to fit its bytes."""
    with file.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of an .npy")
        one = version == (1, 0)
        read_header = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size > _MOST_BYTES or stream.tell() + size != entry.file_size:
            raise DataError(
                f"{path}: {entry.filename}: expected a plain array of at most {_MOST_BYTES:,} bytes, as long as its "
                f"header says, found {dtype} {list(shape)} in {entry.file_size:,} bytes"
            )
    with file.open(entry) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


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
    elif _named(named) and (spelt := _spelt(seen, named)) is not None:
        names = list(named)
        rows = {split: [Labelled(row.where, spelt[row.label]) for row in some] for split, some in rows.items()}
    elif all(label.isascii() and label.isdigit() and len(label) < 7 for label in seen):
        # Labels that are numbers are the numbers of outputs.
        names = list(map(str, range(count or max(map(int, seen)) + 1)))
        rows = {split: [Labelled(row.where, str(int(row.label))) for row in some] for split, some in rows.items()}
    elif _named(named):
        raise DataError(
            f"expected labels among the network's own classes, {', '.join(named[:12])}, found {', '.join(seen[:12])}; "
            "give the labels in the order of the network's outputs: --set task.labels=CAT,DOG,…"
        )
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


def _named(names: Sequence[str]) -> bool:
    """Whether a configuration names its classes, not only counts them."""
    return any(not re.fullmatch(r"LABEL_\d+", name) for name in names)


def _spelt(seen: Sequence[str], names: Sequence[str]) -> dict[str, str] | None:
    """The class's own name for each label, exact or by other capitals; None if a label is no class."""
    folded = {name.casefold(): name for name in names}
    if set(seen) <= set(names):
        return {label: label for label in seen}
    if len(folded) < len(names) or any(label.casefold() not in folded for label in seen):
        return None
    return {label: folded[label.casefold()] for label in seen}
