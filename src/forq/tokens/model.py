"""A model as tasks see it: its kind, the logits of a batch, and the tokens it writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from forq.tokens.batches import Batch

Kind = Literal["causal", "masked", "encoder", "diffusion"]
"""What a model predicts: the next token, the token at a mask, hidden states alone, or the velocity of noise."""

Reader = Callable[[Sequence[int] | None], Tensor]
"""Appends a token to each row, if any are given, and returns the logits of the next: [rows, vocabulary]."""


class ModelConfig(Protocol):
    """The configuration of a language model; fields that only some families have are read with ``getattr``."""

    @property
    def model_type(self) -> str: ...
    @property
    def vocab_size(self) -> int | None: ...


class LanguageModel(ABC):
    """What losses and text generation ask of a causal language model.

    Models of transformers answer by :class:`forq.tokens.pretrained.Pretrained`; ONNX graphs answer by themselves.
    """

    config: ModelConfig
    device: torch.device
    training: bool

    @abstractmethod
    def takes_packed(self, part: Tensor) -> bool:
        """Whether the options of a row may stand beside each other in it.

        Args:
            part: see :class:`forq.tokens.batches.Batch`.
        """

    @abstractmethod
    def scored_logits(self, batch: Batch) -> Iterator[Tensor]:
        """Logits at the scored places of a batch, fp32 [some answers, vocabulary], in the order of the answers."""

    @abstractmethod
    def reader(self, prompts: Sequence[Sequence[int]]) -> Reader:
        """Begin to generate: a reader that has read one prompt per row."""


class Denoiser(Protocol):
    """What tasks of pictures ask of a diffusion model."""

    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def training(self) -> bool: ...

    def __call__(
        self, x: Tensor, texts: Tensor, pooled: Tensor, timestep: Tensor, *, return_dict: bool
    ) -> tuple[Tensor, ...]: ...
