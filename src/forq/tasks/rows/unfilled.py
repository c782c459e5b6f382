"""Nulls that Arrow fills into structs: all structs of a table have the same fields, and their owner wrote fewer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unfilled(row: Mapping[str, object], features: Mapping[str, object]) -> dict[str, object]:
    """A row without the nulls in its structs, as TRL's ``remove_none_values`` leaves it; its own fields stay.

    What is no struct of Arrow (``Json`` of ``datasets``) keeps the nulls that its owner wrote.

    Args:
        features: of the row's ``datasets.Dataset``.

    Example:
        >>> unfilled({"call": {"city": "Paris", "term": None}, "id": None}, {"call": {"city": str, "term": str}})
        {'call': {'city': 'Paris'}, 'id': None}
    """
    return {name: _unfilled(value, features.get(name)) for name, value in row.items()}


def _unfilled(value: Any, feature: Any) -> object:
    if isinstance(value, Mapping) and isinstance(feature, Mapping):
        return {name: _unfilled(inner, feature.get(name)) for name, inner in value.items() if inner is not None}
    of_each = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    if isinstance(value, list) and of_each is not None:
        return [_unfilled(inner, of_each) for inner in value]
    return value
