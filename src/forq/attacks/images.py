"""Images and labels from files: an .npz or a folder of PNG files. uint8 only: a pixel is a whole level."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forq.attacks.ball import Image
from forq.errors import ConfigError, DataError

_MODES = ("L", "RGB")


def read(images: Path, labels: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read images [N, H, W, C] and labels [N].

    Args:
        images: an ``.npz`` with the array ``images`` and, unless ``labels`` is given, ``labels``;
            or a folder of PNG files, grey or RGB, all of one size, read in the order of their names.
        labels: labels in the order of the images: ``.npy``, a ``.json`` list, or ``.npz`` (its array
            ``labels``, or its only array); or labels by file name: a ``.json`` object or a ``.csv``
            with the columns file and label.

    Raises:
        DataError: a file cannot be read or has other contents.
    """
    if images.is_dir():
        names = sorted(path.name for path in images.iterdir() if path.suffix.lower() == ".png")
        if not names:
            raise DataError(f"{images}: expected PNG files in this folder, found none")
        if labels is None:
            raise ConfigError("--labels: a folder of PNG files needs a file with labels (.csv, .json, .npy or .npz)")
        pixels = [read_png(images / name) for name in names]
        shapes = {image.shape for image in pixels}
        if len(shapes) > 1:
            raise DataError(f"{images}: expected images of one size, found {sorted(shapes)}")
        return check(np.stack(pixels), _labels(labels, names))
    if not images.is_file():
        raise DataError(f"{images}: there is no such file or folder")
    arrays = _npz(images, ("images", "labels"))
    if "images" not in arrays:
        raise DataError(f"{images}: expected an array 'images', found {', '.join(arrays) or 'none'}")
    if labels is None and "labels" not in arrays:
        raise DataError(f"{images}: expected an array 'labels' beside 'images'; or name a file with --labels")
    return check(arrays["images"], arrays["labels"] if labels is None else _labels(labels, None))


def check(images: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Check images and labels; grey images [N, H, W] get a last axis.

    Raises:
        DataError: images that are not uint8 or have another shape; labels that are not whole
            numbers ≥ 0, or not one per image.
    """
    x, y = np.asarray(images), np.asarray(labels)
    if x.dtype != np.uint8:
        raise DataError(f"images: expected uint8 levels 0 … 255, found {x.dtype}: attacks move whole levels")
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[3] not in (1, 3) or 0 in x.shape:
        raise DataError(f"images: expected [N, H, W], [N, H, W, 1] or [N, H, W, 3], found {list(x.shape)}")
    if y.shape != (len(x),):
        raise DataError(f"labels: expected {len(x)} labels, one per image, found shape {list(y.shape)}")
    if y.dtype.kind not in "iu" or (y < 0).any():
        raise DataError(
            f"labels: expected whole numbers from 0, found {y.dtype}" + (f" {y.min()}" if y.dtype.kind == "i" else "")
        )
    return np.ascontiguousarray(x), y.astype(np.int64)


def read_png(path: Path) -> Image:
    """A PNG file with 8 bits per channel, grey or RGB, as [H, W, C]."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        with Pillow.open(path) as file:
            if file.format != "PNG" or file.mode not in _MODES:
                raise DataError(
                    f"{path}: expected a PNG with mode {' or '.join(_MODES)}, found {file.format} {file.mode}"
                )
            x = np.array(file, dtype=np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(f"{path}: not a readable PNG: {error}") from error
    return x if x.ndim == 3 else x[..., None]


def png(image: Image) -> bytes:
    """An image as PNG bytes."""
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG")
    return file.getvalue()


def from_png(data: bytes) -> Image:
    """The image in PNG bytes, [H, W, C]."""
    from PIL import Image as Pillow

    x = np.array(Pillow.open(io.BytesIO(data)), dtype=np.uint8)
    return x if x.ndim == 3 else x[..., None]


def _npz(path: Path, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The wanted arrays of an .npz file; if the file has a single array, that array too."""
    try:
        with np.load(path, allow_pickle=False) as file:
            only = file.files if len(file.files) == 1 else ()
            return {name: file[name] for name in file.files if name in wanted or name in only}
    except (ValueError, OSError, zipfile.BadZipFile, AttributeError, TypeError, EOFError) as error:
        raise DataError(f"{path}: not an .npz of plain arrays: {error}") from error


def _labels(path: Path, names: Sequence[str] | None) -> NDArray[Any]:
    if not path.is_file():
        raise DataError(f"{path}: expected a file with labels, found none")
    try:
        if path.suffix == ".npz":
            return _npz_labels(path)
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if path.suffix == ".json":
            body: Any = json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".csv":
            body = _table(path)
        else:
            raise DataError(f"{path}: expected labels as .csv, .json, .npy or .npz")
        return np.array(_in_order(path, body, names) if isinstance(body, dict) else body)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise DataError(f"{path}: labels cannot be read: {error}") from error


def _npz_labels(path: Path) -> NDArray[Any]:
    arrays = _npz(path, ("labels",))
    labels = arrays.get("labels", next(iter(arrays.values()), None))
    if labels is None:
        with np.load(path, allow_pickle=False) as file:
            names = ", ".join(file.files) or "none"
        raise DataError(f"{path}: expected an array 'labels', or one array alone, found {names}; name it 'labels'")
    return labels


def _table(path: Path) -> dict[str, int]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"file", "label"} <= set(rows.fieldnames or ()):
            raise DataError(f"{path}: expected columns file and label, found {', '.join(rows.fieldnames or ())}")
        return {row["file"]: int(row["label"]) for row in rows}


def _in_order(path: Path, by_name: dict[str, Any], names: Sequence[str] | None) -> list[Any]:
    if names is None:
        raise DataError(f"{path}: labels by file name need a folder of PNG files; for an .npz, give a list")
    missing = [name for name in names if name not in by_name]
    if missing:
        raise DataError(f"{path}: no label for {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    return [by_name[name] for name in names]
