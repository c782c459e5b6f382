"""Pictures with captions in a folder, and a picture as the VAE expects it: square, RGB, −1 … 1.

A folder has one of three layouts:

- ``metadata.jsonl`` with ``file_name`` and ``text`` (or ``caption`` or ``prompt``), as in the scripts
  of diffusers;
- a text beside each picture: ``name.png`` and ``name.txt``;
- a sub-folder for each class. Its name is the caption, with ``_`` for a space.

If there is a ``train/`` folder, the splits are sub-folders, each in any of these layouts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.kinds.image_files import ENDS, opened

_FIELDS = ("text", "caption", "prompt")
_SPLITS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's path, its caption, and the digest of its bytes."""

    path: Path
    caption: str
    digest: str


def read_splits(folder: Path) -> dict[Split, list[Picture]]:
    """Pictures by split; without a ``train`` sub-folder, all pictures are training pictures.

    Raises:
        DataError: see :func:`read`.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of pictures with captions, found none")
    if not (folder / "train").is_dir() or (folder / "metadata.jsonl").is_file():
        return {"train": read(folder)}
    pictures: dict[Split, list[Picture]] = {}
    for split, names in _SPLITS.items():
        folders = [folder / name for name in names if (folder / name).is_dir()]
        if folders:
            pictures[split] = read(folders[0])
    return pictures


def read(folder: Path) -> list[Picture]:
    """The pictures in a folder, in order of their names.

    Raises:
        DataError: there are no pictures, a picture has no caption, or a row of metadata.jsonl cannot
            be used (file and line).
    """
    if (folder / "metadata.jsonl").is_file():
        captioned = list(_rows(folder))
    else:
        files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDS]
        captioned = [(path, _caption(path)) for path in files] if files else list(_classes(folder))
    if not captioned:
        raise DataError(f"{folder}: expected pictures ({', '.join(ENDS)}) with captions, found none")
    return [Picture(path, caption, hashlib.sha256(path.read_bytes()).hexdigest()) for path, caption in captioned]


def pixels(path: Path, size: int) -> Tensor:
    """A picture as float32 (3, size, size), −1 … 1.

    It is opened by :func:`forq.tasks.kinds.image_files.opened`, cropped to its middle square and resized.

    Raises:
        DataError: the picture cannot be read, or has more than a hundred million pixels.
    """
    with opened(path) as picture:
        plain = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(plain).copy()).permute(2, 0, 1).float() / 127.5 - 1


def _rows(folder: Path) -> Iterator[tuple[Path, str]]:
    source = folder / "metadata.jsonl"
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        try:
            row = json.loads(line)
            name = row["file_name"]
            caption = next(row[field] for field in _FIELDS if field in row)
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise DataError(
                f"{where}: expected file_name and one of {', '.join(_FIELDS)}, found {line!r:.80}"
            ) from error
        path = folder / str(name)
        if Path(str(name)).is_absolute() or ".." in Path(str(name)).parts or not path.is_file():
            raise DataError(f"{where}: expected the name of a file in {folder}, found {name!r:.80}")
        if not isinstance(caption, str):
            raise DataError(f"{where}: expected a caption, found {caption!r:.80}")
        yield path, caption


def _caption(path: Path) -> str:
    text = path.with_suffix(".txt")
    if not text.is_file():
        raise DataError(f"{path}: expected its caption in {text.name} beside it (or a metadata.jsonl), found none")
    return text.read_text(encoding="utf-8").strip()


def _classes(folder: Path) -> Iterator[tuple[Path, str]]:
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for path in sorted(inner.iterdir()):
            if path.suffix.lower() in ENDS:
                yield path, inner.name.replace("_", " ")


def grid(pictures: Tensor, columns: int) -> Image.Image:
    """Pictures (n, 3, h, w) in 0 … 1 as a single image, row by row."""
    rows = [torch.cat(list(pictures[at : at + columns]), dim=2) for at in range(0, len(pictures), columns)]
    whole = torch.cat([torch.nn.functional.pad(row, (0, rows[0].shape[2] - row.shape[2])) for row in rows], dim=1)
    return Image.fromarray((whole.permute(1, 2, 0) * 255).round().byte().cpu().numpy())
