"""Profile: a factor for how far each coordinate moves, from a file; masks, and noise shaped by sensitivity."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from forq.coordinates.domain import Domain, Domains
from forq.coordinates.leaf import Leaf
from forq.coordinates.space import digest
from forq.errors import ConfigError

FILE = "profile.safetensors"
"""Its name in a run's folder, beside the journal."""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Factors of the units of coordinates, by leaf name: ``unit ← fl32(unit · factor)``.

    Factor 0 keeps a coordinate in place, in probes and in steps. Leaves without factors keep their unit.
    """

    factors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read a safetensors file whose tensors have the checkpoint's names; factors are finite and ≥ 0.

        Raises:
            ConfigError: there is no such file, or a factor is invalid.
        """
        try:
            factors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"profile: {path} cannot be read as safetensors: {error}") from error
        for name, factor in factors.items():
            if not factor.is_floating_point() or not bool((torch.isfinite(factor) & (factor >= 0)).all()):
                held = "others" if factor.is_floating_point() else factor.dtype
                raise ConfigError(f"profile: {name}: expected finite float factors of 0 or more, found {held}")
        return cls({name: factor.float() for name, factor in factors.items()})

    @property
    def digest(self) -> str:
        """Hash of names and factors."""
        return digest(self.factors)

    def check(self, leaves: Iterable[Leaf], shape: Callable[[Leaf], torch.Size]) -> None:
        """Check that every factor belongs to a leaf that moves.

        Args:
            shape: from a leaf to the shape of its coordinates.

        Raises:
            ConfigError: a name does not move, a shape does not fit its leaf, or nothing is left to move.
        """
        shapes = {leaf.name: tuple(shape(leaf)) for leaf in leaves}
        for name, factor in self.factors.items():
            if name not in shapes:
                raise ConfigError(
                    f"profile: expected names of tensors that move ({', '.join(list(shapes)[:3])}, …), found {name}"
                )
            try:
                factor.expand(shapes[name])
            except RuntimeError as error:
                found = tuple(factor.shape)
                raise ConfigError(
                    f"profile: {name}: expected a shape that broadcasts to {shapes[name]}, found {found}"
                ) from error
        if all(name in self.factors and not bool(self.factors[name].any()) for name in shapes):
            raise ConfigError("profile: all factors are 0, so nothing would move; give one above 0")

    def over(self, domain: Domains) -> Domains:
        """A space's domains with the factors on top."""

        def shaped(leaf: Leaf, x: Tensor) -> Domain:
            plain = domain(leaf, x)
            factor = self.factors.get(leaf.name)
            if factor is None:
                return plain
            here = factor.to(x.device).expand(x.shape)
            return replace(plain, unit=(plain.unit * here).float().contiguous())

        return shaped
