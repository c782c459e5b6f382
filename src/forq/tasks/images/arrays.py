"""Images and labels in an .npz, read without unpickling."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.images.npz import Npz
from forq.tasks.rows.split_names import NAMES


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
    held, found = Npz(path), dict[Split, Arrays]()
    for front, split in (("", "train"), *((f"{name}_", split) for name, split in NAMES.items())):
        if f"{front}images" not in held:
            continue
        if f"{front}labels" not in held:
            raise DataError(f"{path}: expected an array {front}labels beside {front}images, found none")
        if split in found:
            raise DataError(f"{path}: expected a single array of {split} images, found {front}images too")
        found[split] = _checked(f"{path}: {front}images", held[f"{front}images"], held[f"{front}labels"])
    if not found:
        raise DataError(f"{path}: expected the arrays images and labels, found {held.said}")
    return found


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
