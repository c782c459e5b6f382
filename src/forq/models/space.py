"""``forq.space``: the coordinates of a model that a recipe moves."""

from __future__ import annotations

from forq.coordinates.domain import DOMAINS, Unit, usual_unit
from forq.coordinates.leaf import LatticeLeaf, Leaf, PackedLeaf
from forq.coordinates.space import Space
from forq.errors import ConfigError
from forq.models.leaves import trainable
from forq.models.loaded import LoadedModel


def space(model: LoadedModel, move: str = "scales", unit: Unit = "relative") -> Space:
    """The coordinates of a loaded model.

    Args:
        model: a model from :func:`forq.load`.
        move: kinds of leaves, separated by commas; see :func:`forq.models.leaves.trainable`.
        unit: unit of probes and steps. ``relative`` measures them by each coordinate's starting
            magnitude, ``absolute`` in plain numbers; both keep signs. ``free`` is absolute without
            bounds, and ``spread`` measures by the tensor's spread. Kinds of leaves that pass
            through zero take ``spread`` in place of ``relative``.

    Raises:
        ConfigError: the model has no leaf of that kind, or the unit is unknown.
    """
    if unit not in DOMAINS:
        raise ConfigError(f"unit: expected one of {', '.join(DOMAINS)}, found {unit!r}")
    return Space(trainable(model, move), lambda leaf, x: DOMAINS[_unit(leaf, unit)](leaf, x))


def _unit(leaf: Leaf, unit: Unit) -> Unit:
    return usual_unit(leaf.group, unit, whole=isinstance(leaf, LatticeLeaf | PackedLeaf))
