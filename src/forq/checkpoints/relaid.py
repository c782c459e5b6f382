"""What a format has a save write, where replacing the bytes of what moved does not do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Relaid:
    """What a save writes.

    Attributes:
        tensors: by names the checkpoint has; of the file's dtype and shape or, where the settings change, of others.
        gone: names that the new files do not hold.
        config: the new config.json, or None: the old one.
    """

    tensors: Mapping[str, Tensor]
    gone: frozenset[str] = frozenset()
    config: Mapping[str, Any] | None = None

    @property
    def patches(self) -> bool:
        """Whether replacing bytes of a copy does it."""
        return not self.gone and self.config is None
