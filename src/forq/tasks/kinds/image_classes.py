"""The classes of a run, for new images with labels: an image's class is the run's class of that name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.kinds.labelled_images import Labelled

_MOST_DIGITS = 6


def within(names: Sequence[str], images: Mapping[Split, Sequence[Labelled]]) -> dict[Split, list[int]]:
    """The class of each image: a place in ``names``, whichever of the names the images have.

    Upper and lower case, and zeros in front of a number, make no difference unless two names differ by
    them alone.

    Raises:
        DataError: a label is none of the names.
    """
    alike: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        alike.setdefault(_plain(name), []).append(place)
    exact = {name: place for place, name in enumerate(names)}

    def place_of(image: Labelled) -> int:
        near = alike.get(_plain(image.label), [])
        place = exact.get(image.label, near[0] if len(near) == 1 else None)
        if place is None:
            raise DataError(
                f"{image.where}: expected a class of the run, {', '.join(names[:12])}, found {image.label!r:.40}; "
                "rename it, or give other classes in the order of the network's outputs: --set task.labels=CAT,DOG,…"
            )
        return place

    return {split: [place_of(image) for image in some] for split, some in images.items()}


def _plain(label: str) -> str:
    number = label.isascii() and label.isdigit() and len(label) <= _MOST_DIGITS
    return str(int(label)) if number else label.casefold()
