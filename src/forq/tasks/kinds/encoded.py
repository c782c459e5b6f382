"""Encoded: what a diffusion task needs of a pipeline's frozen components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from forq.tasks.images.pictures import Picture


class Encoded(Protocol):
    """Latents and text embeddings, computed once by a pipeline's frozen components.

    See :mod:`forq.models.diffusion.encoders`.
    """

    shift: float
    channels: int

    @property
    def digest(self) -> str: ...

    def prepare(self, pictures: Sequence[Picture], resolution: int, text_tokens: int) -> None: ...

    def latent(self, picture: Picture) -> Tensor: ...

    def text(self, caption: str) -> tuple[Tensor, Tensor]: ...

    def draw(self, model: nn.Module, captions: Sequence[str], seed: int, steps: int, size: int) -> Tensor: ...
