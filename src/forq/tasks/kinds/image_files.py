"""Image files as Pillow's images, for every task that reads images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from forq.errors import DataError

ENDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_MOST_PIXELS = 100_000_000


@contextmanager
def opened(path: Path | str) -> Iterator[Image.Image]:
    """An image of 8 bits, rotated by its EXIF orientation, and on white where it is transparent.

    Levels of more than 8 bits are scaled to 0 … 255 by the image's own largest, since a file does not say
    how many of its bits a camera used.

    Raises:
        DataError: the image cannot be read, or has more than a hundred million pixels.
    """
    try:
        with Image.open(path) as file:
            if file.width * file.height > _MOST_PIXELS:
                raise DataError(f"{path}: expected at most {_MOST_PIXELS:,} pixels, found {file.size}; make it smaller")
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I") or picture.mode == "F":  # convert() would clip 16-bit values at 255
                grey = np.asarray(picture, dtype=np.float64)
                picture = Image.fromarray((grey / max(grey.max(), 255.0) * 255).astype(np.uint8))
            if picture.has_transparency_data:
                rgba = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            yield picture
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path}: expected an image that Pillow can read, found {error}; repair or remove it"
        ) from error
