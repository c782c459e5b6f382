"""Image files as Pillow's images, for every task that reads images."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageOps

from forq.errors import DataError

ENDS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_LITTER = ("thumbs.db", "desktop.ini")
_MOST_PIXELS = 100_000_000
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for a damaged file."""


def litter(path: Path) -> bool:
    """Whether a file or folder is hidden, or was left behind by a file manager."""
    return path.name.startswith(".") or path.name.lower() in _LITTER


def images_in(folder: Path) -> list[Path]:
    """The images in a folder, by name. Hidden files and those of file managers (Thumbs.db) are passed over.

    Raises:
        DataError: the folder contains a sub-folder, or a file with another ending.
    """
    files = [path for path in sorted(folder.iterdir()) if not litter(path)]
    for path in files:
        if path.is_dir():
            raise DataError(f"{path}: expected images in {folder.name}, found a sub-folder; move its images up")
        if path.suffix.lower() not in ENDS:
            raise DataError(
                f"{path}: expected an image ({', '.join(ENDS)}), found {path.suffix or 'no ending'!r}; convert the "
                "file, or move it elsewhere"
            )
    return files


@contextmanager
def opened(path: Path | str) -> Iterator[Image.Image]:
    """An image of 8 bits, rotated by its EXIF orientation, and on white where it is transparent.

    Raises:
        DataError: the image cannot be read, has several frames, a grey scale of more than 8 bits, or more than a
            hundred million pixels.
    """
    try:
        with Image.open(path) as file:
            _check(file, path)
            picture = ImageOps.exif_transpose(file)
            if picture.has_transparency_data:
                rgba = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            yield picture
    except _UNREADABLE as error:
        raise DataError(
            f"{path}: expected an image that Pillow can read, found {error}; repair or remove it"
        ) from error


def transparent(path: Path | str) -> bool:
    """Whether a part of an image is transparent, so that it depends on the reader what is seen there.

    Raises:
        DataError: the image cannot be read.
    """
    try:
        with Image.open(path) as file:
            seen = file.convert("RGBA").getchannel("A").getextrema() if file.has_transparency_data else (255, 255)
    except _UNREADABLE as error:
        raise DataError(
            f"{path}: expected an image that Pillow can read, found {error}; repair or remove it"
        ) from error
    return seen[0] != 255


def _check(file: Image.Image, path: Path | str) -> None:
    if file.width * file.height > _MOST_PIXELS:
        raise DataError(f"{path}: expected at most {_MOST_PIXELS:,} pixels, found {file.size}; make it smaller")
    # convert() clips these modes at 255, and a file does not say how many of its bits a camera used.
    if file.mode.startswith("I") or file.mode == "F":
        raise DataError(
            f"{path}: expected 8 bits a channel, found mode {file.mode!r} of Pillow; convert it to 8 bits, scaled as "
            "the network was trained"
        )
    # The further frames of an MPO, a JPEG of phones, are previews of the first.
    if file.format != "MPO" and getattr(file, "is_animated", False):
        raise DataError(
            f"{path}: expected a single image, found {getattr(file, 'n_frames', 2)} frames; save each in a file of its "
            "own, or keep one"
        )
