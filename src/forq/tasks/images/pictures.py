"""Pictures with captions in a folder, and a picture as the VAE expects it: square, RGB, −1 … 1.

A folder has one of three layouts:

- a list, ``metadata.jsonl`` or ``metadata.csv``, with ``file_name`` and ``text`` (or ``caption`` or ``prompt``), as in
  the scripts of diffusers;
- a text beside each picture: ``name.png`` and ``name.txt``;
- a sub-folder for each class. Its name is the caption, with ``_`` for a space.

The splits are sub-folders, each in any of these layouts, or are told by a list
(:func:`forq.tasks.images.listing.listed`). Every file of a folder is read or refused by its name; pictures
that a list does not name are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.images.files import ENDS, images_in, litter, opened
from forq.tasks.images.listing import Listed, folders_in, listed, split_folders
from forq.tasks.rows.table import content_of
from forq.tasks.rows.utf8 import text_of

_FIELDS = ("text", "caption", "prompt")
_LISTS = ("metadata.jsonl", "metadata.csv")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's path, its caption, and the digest of its bytes."""

    path: Path
    caption: str
    digest: str


def read_splits(folder: Path) -> dict[Split, list[Picture]]:
    """Pictures by split; without sub-folders of splits, and without a list that names them, all are training pictures.

    Raises:
        DataError: there are no training pictures, a picture has no caption, a file is neither, or a row of a list
            cannot be used (file and line).
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of pictures with captions, found none")
    found: dict[Split, list[tuple[Path, str]]] = {}
    if (source := _list(folder)) is not None:
        for row, caption in _rows(source):
            found.setdefault(row.split, []).append((row.file, caption))
    else:
        found = {split: list(_captioned(inner)) for split, inner in split_folders(folder).items()}
    for split in ("train", *found):
        if not found.get(split):
            raise DataError(
                f"{folder}: expected pictures ({', '.join(ENDS)}) with captions, found none for the split {split}"
            )
    return {
        split: [Picture(path, caption, hashlib.sha256(path.read_bytes()).hexdigest()) for path, caption in some]
        for split, some in found.items()
    }


def pixels(path: Path, size: int) -> Tensor:
    """A picture as float32 (3, size, size), −1 … 1.

    It is opened by :func:`forq.tasks.images.files.opened`, cropped to its middle square and resized.

    Raises:
        DataError: the picture cannot be read, or has more than a hundred million pixels.
    """
    with opened(path) as picture:
        plain = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(plain).copy()).permute(2, 0, 1).float() / 127.5 - 1


def _list(folder: Path) -> Path | None:
    """The list of a folder's pictures, if it has one."""
    found = [folder / name for name in _LISTS if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{folder}: expected a single list, found {' and '.join(_LISTS)}; keep one of them")
    return found[0] if found else None


def _captioned(folder: Path) -> Iterator[tuple[Path, str]]:
    """Path and caption of each picture of a split, in the order of the list or of their names."""
    if (source := _list(folder)) is not None:
        for row, caption in _rows(source):
            yield row.file, caption
        return
    files = [path for path in sorted(folder.iterdir()) if not litter(path)]
    pictures = [path for path in files if path.is_file() and path.suffix.lower() in ENDS]
    if not pictures:
        for inner in folders_in(folder):
            for path in images_in(inner):
                yield path, inner.name.replace("_", " ")
        return
    texts = {path.with_suffix(".txt") for path in pictures}
    for path in files:
        if path not in texts and path not in pictures:
            raise DataError(f"{path}: expected a picture ({', '.join(ENDS)}) or its caption, found neither; move it")
    for path in pictures:
        yield path, _caption(path)


def _rows(source: Path) -> Iterator[tuple[Listed, str]]:
    for row in listed(source, "file_name"):
        caption = next((row.fields[field] for field in _FIELDS if field in row.fields), None)
        if not isinstance(caption, str):
            raise DataError(f"{row.where}: expected a caption, {' or '.join(_FIELDS)}, found {row.fields!r:.120}")
        yield row, caption


def _caption(path: Path) -> str:
    text = path.with_suffix(".txt")
    if not text.is_file():
        raise DataError(f"{path}: expected its caption in {text.name} beside it (or a metadata.jsonl), found none")
    return text_of(content_of(text), text).strip()


def grid(pictures: Tensor, columns: int) -> Image.Image:
    """Pictures (n, 3, h, w) in 0 … 1 as a single image, row by row."""
    rows = [torch.cat(list(pictures[at : at + columns]), dim=2) for at in range(0, len(pictures), columns)]
    whole = torch.cat([torch.nn.functional.pad(row, (0, rows[0].shape[2] - row.shape[2])) for row in rows], dim=1)
    return Image.fromarray((whole.permute(1, 2, 0) * 255).round().byte().cpu().numpy())
