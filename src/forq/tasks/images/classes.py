"""The classes of labelled images: in the order of a network's outputs, or those of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from forq.errors import DataError
from forq.tasks import Split
from forq.tasks.images.labelled import Labelled
from forq.tasks.kinds.label_order import in_order

_MOST_DIGITS = 6


def indices(
    rows: Mapping[Split, Sequence[Labelled]], count: int | None, named: Sequence[str], order: str | None
) -> tuple[tuple[str, ...], dict[Split, list[int]]]:
    """The names of the classes in the order of the network's outputs, and the class of each image.

    The order is the one that the user gives, else that of the network's own names. Labels 0, 1, 2, … are the numbers
    of outputs. Others take the outputs in order: numbers by value, texts by their characters.

    Args:
        count: number of outputs, if it is known.
        named: names in the network's own configuration; empty if it has none.
        order: names in the order of the outputs, separated by commas, as the user gives them.

    Raises:
        DataError: a label is no class of the network, or a number is spelled in two ways.
    """
    seen = in_order({row.label for some in rows.values() for row in some})
    names, spelt = list(seen), {label: label for label in seen}
    if order is not None:
        names = [name.strip() for name in order.split(",")]
    elif _named(named) and (own := _spelt(seen, named)) is not None:
        names, spelt = list(named), own
    elif all(_numbered(label) for label in seen):
        names = list(map(str, range(count or max(map(int, seen)) + 1)))
        spelt = {label: str(int(label)) for label in seen}
    elif _named(named):
        raise DataError(
            f"expected labels among the network's own classes, {', '.join(named[:12])}, found {', '.join(seen[:12])}; "
            "give the labels in the order of the network's outputs: --set task.labels=CAT,DOG,…"
        )
    elif count is not None and len(seen) != count:
        raise DataError(
            f"expected labels of {count} classes, found {len(seen)}: {', '.join(seen[:8])}; give the classes in the "
            "order of the network's outputs: --set task.labels=CAT,DOG,…"
        )
    if len(set(names)) != len(names) or (count is not None and len(names) != count) or len(names) < 2:
        raise DataError(f"expected {count or 'two or more'} different classes, found {len(names)}: {names!r:.120}")
    places = {name: place for place, name in enumerate(names)}
    for some in rows.values():
        for row in some:
            if spelt[row.label] not in places:
                raise DataError(f"{row.where}: expected a class among {', '.join(names[:12])}, found {row.label!r:.40}")
    return tuple(names), {split: [places[spelt[row.label]] for row in some] for split, some in rows.items()}


def by_value(rows: Mapping[Split, Sequence[Labelled]], named: Sequence[str]) -> bool:
    """Whether class folders are numbers of outputs by value, and torchvision's ImageFolder would order them otherwise.

    Args:
        named: names in the network's own configuration.
    """
    labels = {row.label for some in rows.values() for row in some}
    folders = (Path(row.where).parent.name == row.label for some in rows.values() for row in some)
    if _named(named) or not all(map(_numbered, labels)) or not all(folders):
        return False
    return sorted(labels) != sorted(labels, key=int)


def _named(names: Sequence[str]) -> bool:
    """Whether a configuration names its classes, not only counts them."""
    return any(not re.fullmatch(r"LABEL_\d+", name) for name in names)


def _spelt(seen: Sequence[str], names: Sequence[str]) -> dict[str, str] | None:
    """The class's own name for each label, exact or by other capitals; None if a label is no class."""
    folded = {name.casefold(): name for name in names}
    if set(seen) <= set(names):
        return {label: label for label in seen}
    if len(folded) < len(names) or any(label.casefold() not in folded for label in seen):
        return None
    return {label: folded[label.casefold()] for label in seen}


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
    return str(int(label)) if _numbered(label) else label.casefold()


def _numbered(label: str) -> bool:
    """Whether a label may be the number of an output."""
    return label.isascii() and label.isdigit() and len(label) <= _MOST_DIGITS
