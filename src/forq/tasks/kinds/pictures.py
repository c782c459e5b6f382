"""Pictures with captions in a folder, and a picture as the VAE takes it: square, RGB, −1 … 1.

Three layouts, told apart by what is there: ``metadata.jsonl`` (``file_name`` and ``text``, as scripts of diffusers
read it; ``caption`` and ``prompt`` too), a text beside each picture (``name.png``, ``name.txt``), or a sub-folder for
each class, whose name is the caption (``_`` is a space). A folder with ``train/`` has its splits as sub-folders, each
in any layout.
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

_ENDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_FIELDS = ("text", "caption", "prompt")
_SPLITS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
_MOST_PIXELS = 100_000_000


@dataclass(frozen=True, slots=True)
class Picture:
    """A file, its caption, and the digest of its bytes."""

    path: Path
    caption: str
    digest: str


def read_splits(folder: Path) -> dict[Split, list[Picture]]:
    """Pictures by split; all of them as ``train`` where the folder has no sub-folder of that name.

    Raises:
        DataError: see :func:`read`.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of pictures with captions, found none")
    if not (folder / "train").is_dir() or (folder / "metadata.jsonl").is_file():
        return {"train": read(folder)}
    found: dict[Split, list[Picture]] = {}
    for split, names in _SPLITS.items():
        there = [folder / name for name in names if (folder / name).is_dir()]
        if there:
            found[split] = read(there[0])
    return found


def read(folder: Path) -> list[Picture]:
    """The pictures of one folder, in order of their names.

    Raises:
        DataError: no pictures; one without a caption; a row of metadata.jsonl that cannot be used (file and line).
    """
    if (folder / "metadata.jsonl").is_file():
        named = list(_rows(folder))
    else:
        files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in _ENDS]
        named = [(path, _beside(path)) for path in files] if files else list(_classes(folder))
    if not named:
        raise DataError(f"{folder}: expected pictures ({', '.join(_ENDS)}) with captions, found none")
    return [Picture(path, caption, hashlib.sha256(path.read_bytes()).hexdigest()) for path, caption in named]


def pixels(path: Path, size: int) -> Tensor:
    """A picture as float32 (3, size, size), −1 … 1: turned as its EXIF says, on white where it is transparent, its
    middle square, resized.

    Raises:
        DataError: it cannot be read, or is larger than a hundred million pixels.
    """
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise DataError(
                    f"{path}: expected at most {_MOST_PIXELS:,} pixels, found {opened.size}; make it smaller"
                )
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I") or picture.mode == "F":  # 16 bits, which convert() would cut off at 255
                grey = np.asarray(picture, dtype=np.float64)
                picture = Image.fromarray((grey / max(grey.max(), 255.0) * 255).astype(np.uint8))
            if picture.has_transparency_data:
                rgba = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            plain = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: expected a picture Pillow can read, found {error}; mend or remove it") from error
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


def _beside(path: Path) -> str:
    text = path.with_suffix(".txt")
    if not text.is_file():
        raise DataError(f"{path}: expected its caption in {text.name} beside it (or a metadata.jsonl), found none")
    return text.read_text(encoding="utf-8").strip()


def _classes(folder: Path) -> Iterator[tuple[Path, str]]:
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for path in sorted(inner.iterdir()):
            if path.suffix.lower() in _ENDS:
                yield path, inner.name.replace("_", " ")


def grid(pictures: Tensor, columns: int) -> Image.Image:
    """Pictures (n, 3, h, w) in 0 … 1 as one, row by row."""
    rows = [torch.cat(list(pictures[at : at + columns]), dim=2) for at in range(0, len(pictures), columns)]
    whole = torch.cat([torch.nn.functional.pad(row, (0, rows[0].shape[2] - row.shape[2])) for row in rows], dim=1)
    return Image.fromarray((whole.permute(1, 2, 0) * 255).round().byte().cpu().numpy())
