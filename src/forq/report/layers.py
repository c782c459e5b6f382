"""What moved where: tables with the relative change of each tensor, by layer and part of the layer."""

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
    """The change of a tensor: its text, the depth of its colour (0 … 100) and its tooltip."""

    text: str
    depth: int
    description: str


@dataclass(frozen=True, slots=True)
class Map:
    """The leaves of one group: a table of layers by parts; ``None`` if a layer has no such part.

    Attributes:
        alone: tensors outside all layers, by name.
        highest: the largest relative change; it has the deepest colour.
        changed, total, flipped: changed coordinates, all coordinates, and those whose sign changed;
            means per run.
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
    """One map per group of leaves, with means over the runs of a method; empty without moved.json.

    The relative change of a tensor is the norm of its difference divided by the norm of the base.
    For packed integers it is the share of words that differ.
    """
    moved = [record.moved for record in records if record.moved]
    by_group: dict[str, list[Change]] = {}
    for row in (row for rows in moved for row in rows):
        by_group.setdefault(row.group, []).append(row)
    return [_map(group, rows, len(moved)) for group, rows in sorted(by_group.items(), key=lambda item: -len(item[1]))]


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
        description = f"{names}: changed by {percent(change)} of its norm, {percent(share)} of its coordinates"
        return Cell(_short(change), round(100 * change / highest) if highest else 0, description)

    layers = sorted({layer for layer, _ in changes if layer}, key=_natural)
    parts = sorted({part for layer, part in changes if layer}, key=_order)
    flipped = [row.flipped for row in rows if row.flipped is not None]
    alone = [(part, cell((layer, part))) for layer, part in changes if not layer]
    return Map(
        group=group,
        parts=tuple(_short_names(parts)),
        rows=tuple((layer, tuple(cell((layer, part)) for part in parts)) for layer in layers),
        alone=tuple((name, tensor) for name, tensor in sorted(alone, key=lambda item: item[0]) if tensor is not None),
        highest=percent(highest),
        changed=round(sum(row.changed for row in rows) / runs),
        total=round(sum(row.total for row in rows) / runs),
        flipped=round(sum(flipped) / runs) if flipped else None,
    )


def _place(name: str, group: str) -> tuple[str, str]:
    """(layer, part) of a tensor from its name; the layer is empty if the name has none. Experts share a part."""
    match = _PLACE.match(name)
    if match is None:
        return "", name.removesuffix(".weight")
    part = re.sub(r"\.\d+(?=\.|$)", ".*", match["part"])
    stack = match["before"].split(".")
    side = next((side for side in ("encoder", "decoder") if side in stack and "layers" in stack), "")
    return f"{side} {match['layer']}".strip(), part


def _change(tensors: Sequence[Change]) -> float:
    """Norm of the difference over the norm of the base; for packed integers the share of changed words."""
    if any(row.norm is None for row in tensors):
        return sum(row.changed for row in tensors) / max(1, sum(row.total for row in tensors))
    base = math.hypot(*(row.norm or 0.0 for row in tensors))
    moved = math.hypot(*(row.moved or 0.0 for row in tensors))
    return moved / base if base else 0.0


def _short_names(parts: Sequence[str]) -> list[str]:
    """Short unique names: the last words of each part, without ``_proj`` and a common ending.

    The common ending is the tensor name of the format: ``scales``, ``weight.absmax``, ``weight.d``.
    """
    split = [part.split(".") for part in parts]
    while len(split) > 1 and all(len(words) > 1 and words[-1] == split[0][-1] for words in split):
        split = [words[:-1] for words in split]

    def last(words: Sequence[str], count: int) -> str:
        return ".".join(words[-count:]).removesuffix("_proj")

    names = []
    for part in split:
        depth = len(part)
        counts = range(1, depth + 1)
        unique = (n for n in counts if sum(last(other, n) == last(part, n) for other in split) == 1)
        names.append(last(part, next(unique, depth)))
    return names


_ORDER = ("q", "query", "k", "key", "v", "value", "o", "out", "output", "gate", "up", "fc1", "down", "fc2")


def _order(part: str) -> tuple[int, int, str]:
    """Sort key: attention before the feed-forward layer, each in the order of computation."""
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
