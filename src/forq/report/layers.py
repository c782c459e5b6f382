"""What moved where: the relative change of every tensor, as maps of layer by part of the layer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forq.report.charts import percent
from forq.report.record import Record
from forq.runs.changes import Change

_PLACE = re.compile(r"^(?P<before>.*?)\.(?P<layer>\d+)\.(?P<part>.+)$")


@dataclass(frozen=True, slots=True)
class Cell:
    """A tensor's change: what is written, how deep the colour is (0 … 100), what is said of it at length."""

    text: str
    depth: int
    says: str


@dataclass(frozen=True, slots=True)
class Map:
    """The leaves of one group: a table of layers by parts, ``None`` where a layer has no such part.

    Attributes:
        alone: tensors that belong to no layer, by name.
        highest: the largest relative change, where the colour is deepest.
        changed, total, flipped: coordinates that differ, coordinates, and those that changed their sign; of one run.
    """

    group: str
    parts: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    alone: tuple[tuple[str, Cell], ...]
    highest: str
    changed: int
    total: int
    flipped: int | None


def maps(records: Iterable[Record]) -> list[Map]:
    """Maps of the mean over runs of one method, one a group of leaves; empty where no run has recorded what moved.

    The relative change of a tensor is the norm of the difference over the norm of the base; of packed integers it is
    the share of words that differ.
    """
    moved = [record.moved for record in records if record.moved]
    found: dict[str, list[Change]] = {}
    for row in (row for rows in moved for row in rows):
        found.setdefault(row.group, []).append(row)
    return [_map(group, rows, len(moved)) for group, rows in sorted(found.items(), key=lambda one: -len(one[1]))]


def _map(group: str, rows: Sequence[Change], runs: int) -> Map:
    placed: dict[tuple[str, str], list[Change]] = {}
    for row in rows:
        placed.setdefault(_place(row.name, group), []).append(row)
    changes = {place: _change(tensors) for place, tensors in placed.items()}
    highest = max(changes.values(), default=0.0)

    def cell(place: tuple[str, str]) -> Cell | None:
        if place not in changes:
            return None
        change, tensors = changes[place], placed[place]
        names = " and ".join(dict.fromkeys(row.name for row in tensors[:2]))
        share = sum(row.changed for row in tensors) / max(1, sum(row.total for row in tensors))
        says = f"{names}: changed by {percent(change)} of its norm, {percent(share)} of its coordinates"
        return Cell(_short(change), round(100 * change / highest) if highest else 0, says)

    layers = sorted({layer for layer, _ in changes if layer}, key=_natural)
    parts = sorted({part for layer, part in changes if layer}, key=_order)
    flipped = [row.flipped for row in rows if row.flipped is not None]
    alone = [(part, cell((layer, part))) for layer, part in changes if not layer]
    return Map(
        group=group,
        parts=tuple(_called(parts)),
        rows=tuple((layer, tuple(cell((layer, part)) for part in parts)) for layer in layers),
        alone=tuple((part, found) for part, found in sorted(alone, key=lambda one: one[0]) if found is not None),
        highest=percent(highest),
        changed=round(sum(row.changed for row in rows) / runs),
        total=round(sum(row.total for row in rows) / runs),
        flipped=round(sum(flipped) / runs) if flipped else None,
    )


def _place(name: str, group: str) -> tuple[str, str]:
    """(layer, part of it) of a tensor by its name; no layer where the name counts none. Experts stand together."""
    match = _PLACE.match(name)
    if match is None:
        return "", name.removesuffix(".weight")
    part = re.sub(r"\.\d+(?=\.|$)", ".*", match["part"])
    stack = match["before"].split(".")
    side = next((side for side in ("encoder", "decoder") if side in stack and "layers" in stack), "")
    return f"{side} {match['layer']}".strip(), part


def _change(tensors: Sequence[Change]) -> float:
    """Root of all squared differences over root of all squares; of integers the share that differs."""
    if any(row.norm is None for row in tensors):
        return sum(row.changed for row in tensors) / max(1, sum(row.total for row in tensors))
    base = math.hypot(*(row.norm or 0.0 for row in tensors))
    moved = math.hypot(*(row.moved or 0.0 for row in tensors))
    return moved / base if base else 0.0


def _called(parts: Sequence[str]) -> list[str]:
    """The last words of the parts, as many as tell them apart, without what all end in and without ``_proj``.

    All end in what the format calls such a tensor: ``scales``, ``weight.absmax``, ``weight.d``.
    """
    split = [part.split(".") for part in parts]
    while len(split) > 1 and all(len(words) > 1 and words[-1] == split[0][-1] for words in split):
        split = [words[:-1] for words in split]

    def last(words: Sequence[str], count: int) -> str:
        return ".".join(words[-count:]).removesuffix("_proj")

    found = []
    for part in split:
        depth = len(part)
        counts = range(1, depth + 1)
        alone = (n for n in counts if sum(last(other, n) == last(part, n) for other in split) == 1)
        found.append(last(part, next(alone, depth)))
    return found


_ORDER = ("q", "query", "k", "key", "v", "value", "o", "out", "output", "gate", "up", "fc1", "down", "fc2")


def _order(part: str) -> tuple[int, int, str]:
    """Attention before the feed-forward layer, and each in the order it is computed."""
    words = [word.removesuffix("_proj").removesuffix("_lin") for word in reversed(part.split("."))]
    place = next((_ORDER.index(word) for word in words if word in _ORDER), len(_ORDER))
    later = any(word in part for word in ("mlp", "ffn", "fc", "intermediate", "experts"))
    return int(later), place, part


def _natural(layer: str) -> tuple[str, int]:
    side, _, number = layer.rpartition(" ")
    return side, int(number)


def _short(change: float) -> str:
    """Percent in three characters."""
    value = 100 * change
    if value == 0:
        return "0"
    if value < 0.005:
        return "<.01"
    return f"{value:.2f}".lstrip("0") if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"
