"""The interface between models and tasks: kind of model, logits of a batch, text generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from forq.tokens.batches import Batch

Kind = Literal["causal", "masked", "encoder", "classifier", "diffusion", "images"]
"""What a model predicts: the next token, a masked token, only hidden states, a class, a diffusion velocity, or
whatever a network on images gives."""

Pooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""How an encoder's token vectors become one; ``cls`` is the first token's."""

Reader = Callable[[Sequence[int] | None], Tensor]
"""Appends a token to each row, unless given None, and returns the next token's logits: [rows, vocabulary]."""


class ModelConfig(Protocol):
    """The configuration of a language model; fields that only some families have are read with ``getattr``."""

    @property
    def model_type(self) -> str: ...
    @property
    def vocab_size(self) -> int | None: ...


class LanguageModel(ABC):
    """The interface of a causal language model for losses and text generation.

    Models of transformers are wrapped in :class:`forq.tokens.pretrained.Pretrained`; ONNX graphs implement it.
    """

    config: ModelConfig
    device: torch.device
    training: bool

    @abstractmethod
    def takes_packed(self, part: Tensor) -> bool:
        """Whether a row may hold several options, one behind the other.

        Args:
            part: see :class:`forq.tokens.batches.Batch`.
        """

    @abstractmethod
    def scored_logits(self, batch: Batch) -> Iterator[Tensor]:
        """Yield logits at the scored positions in order, in chunks of fp32 [answer tokens, vocabulary]."""

    @abstractmethod
    def reader(self, prompts: Sequence[Sequence[int]]) -> Reader:
        """Start generation: a reader that has read one prompt for each row."""


class Denoiser(Protocol):
    """The interface of a diffusion model for image tasks."""

    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def training(self) -> bool: ...

    def __call__(
        self, x: Tensor, texts: Tensor, pooled: Tensor, timestep: Tensor, *, return_dict: bool
    ) -> tuple[Tensor, ...]: ...
