"""From a model to the space its recipe moves in."""

from __future__ import annotations

from torch import nn

from forq.core import ConfigError
from forq.leaves import DOMAINS
from forq.models.leaves import trainable
from forq.spaces import Space


def space(model: nn.Module, move: str = "scales", unit: str = "relative") -> Space:
    """The coordinates of a loaded model.

    Args:
        model: from :func:`forq.load`.
        move: ``scales``, ``norms``, ``biases``, ``dense``, or ``all-float``.
        unit: what probes and steps are measured in: ``relative`` to each coordinate's starting magnitude,
            ``absolute`` (both keep signs), or ``free`` of bounds.

    Raises:
        ConfigError: the model holds nothing of that kind, or the unit is unknown.
    """
    if unit not in DOMAINS:
        raise ConfigError(f"unit: expected one of {', '.join(DOMAINS)}, found {unit!r}")
    return Space(trainable(model, move), DOMAINS[unit])
