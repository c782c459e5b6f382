"""Images and labels from files: an .npz or a folder of PNG files. uint8 only: a pixel is a whole level."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forq.attacks import labels as _labels
from forq.attacks.ball import Image
from forq.errors import ConfigError, DataError
from forq.tasks.images.files import ENDS, litter
from forq.tasks.images.npz import Npz

_MODES = ("L", "RGB")


def read(images: Path, labels: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read images [N, H, W, C] and labels [N].

    Args:
        images: an ``.npz`` with the array ``images`` and, unless ``labels`` is given, ``labels``;
            or a folder of PNG files, grey or RGB, all of one size, read in the order of their names;
            an image of another kind is refused.
        labels: see :mod:`forq.attacks.labels`.

    Raises:
        DataError: a file cannot be read or has other contents.
    """
    if images.is_dir():
        names = sorted(path.name for path in images.iterdir() if path.suffix.lower() in ENDS and not litter(path))
        if not names:
            raise DataError(f"{images}: expected PNG files in this folder, found none")
        if labels is None:
            raise ConfigError("--labels: a folder of PNG files needs a file with labels (.csv, .json, .npy or .npz)")
        pixels = [read_png(images / name) for name in names]
        shapes = {image.shape for image in pixels}
        if len(shapes) > 1:
            raise DataError(f"{images}: expected images of one size, found {sorted(shapes)}")
        return check(np.stack(pixels), _labels.read(labels, names))
    if not images.is_file():
        raise DataError(f"{images}: there is no such file or folder")
    arrays = Npz(images)
    if "images" not in arrays:
        raise DataError(f"{images}: expected an array 'images', found {arrays.said}")
    if labels is None and "labels" not in arrays:
        raise DataError(f"{images}: expected an array 'labels' beside 'images'; or name a file with --labels")
    return check(arrays["images"], arrays["labels"] if labels is None else _labels.read(labels, None))


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
