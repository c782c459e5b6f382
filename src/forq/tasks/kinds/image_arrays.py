"""Images and labels in an .npz, read without unpickling."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.rows.split_names import NAMES

_MOST_BYTES = 16 << 30
"""Most bytes of an array."""


class Arrays(NamedTuple):
    """Images uint8 [N, H, W, C] with C = 1 or 3, labels [N] (whole numbers or texts), and their place for messages."""

    where: str
    images: NDArray[np.uint8]
    labels: NDArray[Any]


def read(path: Path) -> dict[Split, Arrays]:
    """The arrays ``images`` and ``labels``, or ``train_images`` and ``train_labels`` and so on, by split.

    Raises:
        DataError: the file is no .npz, has no such arrays, or they have other types or shapes.
    """
    found: dict[Split, Arrays] = {}
    try:
        with zipfile.ZipFile(path) as file:
            names = {entry.filename.removesuffix(".npy"): entry for entry in file.infolist()}
            for front, split in (("", "train"), *((f"{name}_", split) for name, split in NAMES.items())):
                if f"{front}images" not in names:
                    continue
                if f"{front}labels" not in names:
                    raise DataError(f"{path}: expected an array {front}labels beside {front}images, found none")
                if split in found:
                    raise DataError(f"{path}: expected a single array of {split} images, found {front}images too")
                images, labels = (_array(path, file, names[f"{front}{kind}"]) for kind in ("images", "labels"))
                found[split] = _checked(f"{path}: {front}images", images, labels)
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


def _checked(where: str, images: NDArray[Any], labels: NDArray[Any]) -> Arrays:
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
    return Arrays(where, images, labels)
