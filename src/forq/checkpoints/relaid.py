"""A new layout: the tensors of a save whose names, shapes or configuration differ from the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Relaid:
    """The tensors and configuration that a save writes.

    Attributes:
        tensors: new values by tensor name. Dtype and shape are the file's unless ``config`` changes
            the format.
        gone: names of tensors that the new files leave out.
        config: the new config.json; None: keep the old one.
    """

    tensors: Mapping[str, Tensor]
    gone: frozenset[str] = frozenset()
    config: Mapping[str, object] | None = None

    @property
    def patches(self) -> bool:
        """Whether the save only replaces bytes in a copy."""
        return not self.gone and self.config is None
