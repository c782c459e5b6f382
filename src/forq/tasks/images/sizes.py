"""The sizes of an image on its way to a network: resized and cropped to its middle, as each image processor does it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from forq.errors import ConfigError
from forq.tasks.images.processors import CLASS

Pair = tuple[int, int]
"""Height and width."""

_WARPED = 384
"""Side from which ConvNext resizes to a square and crops nothing."""


class Sizes(NamedTuple):
    """What images are resized to, ``size`` or the length of the ``shortest`` side, and the middle that is kept."""

    size: Pair | None = None
    shortest: int | None = None
    crop: Pair | None = None


def sizes_of(file: Path, settings: Mapping[str, Any]) -> Sizes:
    """The sizes that a file's fields mean to the class under :data:`forq.tasks.images.processors.CLASS`.

    Raises:
        ConfigError: a size is no height and width and no shorter side, or is none that the class takes.
    """
    crop = (
        _square(file, _size(file, settings.get("crop_size"), square=True)) if settings.get("do_center_crop") else None
    )
    if not settings.get("do_resize"):
        return Sizes(crop=crop)
    by_class = settings.get(CLASS)
    size = _size(file, settings["size"], square=settings.get("default_to_square", None if by_class is None else True))
    if by_class == "ConvNext":
        return _convnext(file, size, crop, settings["crop_pct"])
    if by_class == "PoolFormer":
        share = settings["crop_pct"]
        if isinstance(size, tuple) and size[0] != size[1]:
            return Sizes(size=(_larger(file, size[0], share), _larger(file, size[1], share)), crop=crop)
        # The class resizes a square by its shorter side too.
        side = size if isinstance(size, int) else size[0]
        return Sizes(shortest=_larger(file, side, share), crop=crop)
    if isinstance(size, tuple):
        return Sizes(size=size, crop=crop)
    return Sizes(shortest=int((256 / 224) * size) if by_class == "Levit" else size, crop=crop)


def _convnext(file: Path, size: Pair | int, crop: Pair | None, share: object) -> Sizes:
    if isinstance(size, tuple) or crop is not None:
        raise ConfigError(f"{file}: expected shortest_edge and no do_center_crop, as ConvNext crops by crop_pct")
    if size >= _WARPED:
        return Sizes(size=(size, size))
    return Sizes(shortest=_larger(file, size, share), crop=(size, size))


def _larger(file: Path, side: int, share: object) -> int:
    """The length of which ``side`` is a share."""
    if not isinstance(share, int | float) or not 0.1 <= share <= 1:
        raise ConfigError(f"{file}: expected crop_pct from 0.1 to 1, found {share!r:.40}")
    return int(side / share)


def _size(file: Path, given: object, *, square: bool | None) -> Pair | int:
    """Height and width, or the length of the shorter side.

    Args:
        square: a number is the side of a square, not the length of the shorter side; None: numbers are refused.
    """
    match given:
        case {"height": int(high), "width": int(wide), **others} if not others:
            found: Pair | int = (high, wide)
        case [int(high), int(wide)]:
            found = (high, wide)
        case {"shortest_edge": int(side), **others} if not others:
            found = side
        case int(side) if square is not None:
            found = (side, side) if square else side
        case _:
            found = 0
    if not all(0 < side < 1 << 14 for side in ((found,) if isinstance(found, int) else found)):
        raise ConfigError(
            f"{file}: expected a size {{height, width}} or {{shortest_edge}} in pixels, found {given!r:.60}; write "
            "one of these"
        )
    return found


def _square(file: Path, size: Pair | int) -> Pair:
    if isinstance(size, int):
        raise ConfigError(f"{file}: expected crop_size {{height, width}} in pixels, found shortest_edge {size}")
    return size
