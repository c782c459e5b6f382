"""The model that :func:`forq.load` returns.

A loaded model *is* the model of transformers or diffusers, not a wrapper around it. Its class
inherits from :class:`LoadedModel` and from the library's class, as in FSDP. So parameter and module
names have no prefix; hooks, ``train()`` and ``generate()`` are the library's; and libraries that
expect a ``PreTrainedModel`` accept it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from forq.checkpoints import Checkpoint
from forq.coordinates.leaf import Leaf
from forq.layers.lora import Adapter
from forq.models.pooling import pooling as pooling_of
from forq.models.tokenizer import CheckpointTokenizer, open_tokenizer
from forq.tokens.batches import Batch
from forq.tokens.model import Kind, LanguageModel, ModelConfig, Pooling, Reader
from forq.tokens.pretrained import Pretrained


# transformers resolves these annotations at run time, so their types are imported outside TYPE_CHECKING.
class LoadedModel(nn.Module, LanguageModel):
    """A model and the checkpoint it came from.

    Attributes:
        checkpoint: the checkpoint it was loaded from.
        names: maps each float parameter's name to the tensor's name in the checkpoint.
        kind: kind of model, which decides what it predicts.
        pooling: the ways in which an encoder makes the vector of a text.
        adapters: LoRA adapters attached to its layers.
        lent: leaves, by name, that a space may have moved since their values were last the file's.
        unlike: sentences on what the format's owner computes and forq does not, on weights in
            the folder that forq does not tune, and on a faster kernel that cannot be made here.
        config: the configuration of transformers or diffusers.
        generation_config: transformers' ``GenerationConfig``, if the model has one.
        device, dtype: device and dtype of activations and float weights.
    """

    checkpoint: Checkpoint
    names: Mapping[str, str]
    kind: Kind
    pooling: tuple[Pooling, ...] = ("mean",)
    adapters: list[Adapter]
    lent: dict[str, Leaf]
    unlike: tuple[str, ...]
    config: ModelConfig
    generation_config: object
    device: torch.device
    dtype: torch.dtype

    @cached_property
    def tokenizer(self) -> CheckpointTokenizer:
        """The checkpoint's tokenizer, opened once.

        Raises:
            ConfigError, FormatError: see :func:`forq.models.tokenizer.open_tokenizer`.
        """
        return open_tokenizer(self.checkpoint)

    def takes_packed(self, part: Tensor) -> bool:
        """See :meth:`forq.tokens.model.LanguageModel.takes_packed`."""
        return Pretrained(self).takes_packed(part)

    def scored_logits(self, batch: Batch) -> Iterator[Tensor]:
        """See :meth:`forq.tokens.model.LanguageModel.scored_logits`."""
        return Pretrained(self).scored_logits(batch)

    def reader(self, prompts: Sequence[Sequence[int]]) -> Reader:
        """See :meth:`forq.tokens.model.LanguageModel.reader`."""
        return Pretrained(self).reader(prompts)

    @property
    def takes_adapters(self) -> bool:
        """Whether LoRA adapters can be attached to its layers."""
        return True

    def own_leaves(self) -> Iterable[Leaf]:
        """Leaves that belong to no module, such as the scales of a graph's activations."""
        return ()

    def prepare(self, moving: Iterable[Leaf]) -> None:
        """Called with the leaves that may move from now on; a graph makes them inputs of its session."""


def loaded(
    model: nn.Module, checkpoint: Checkpoint, names: Mapping[str, str], kind: Kind, unlike: tuple[str, ...]
) -> LoadedModel:
    """Turn a model of transformers or diffusers into a :class:`LoadedModel`; the object stays the same."""
    model.__class__ = _class(type(model))
    assert isinstance(model, LoadedModel)
    model.checkpoint, model.names, model.kind, model.unlike = checkpoint, names, kind, unlike
    model.adapters, model.lent, model.pooling = [], {}, pooling_of(checkpoint)
    return model


_CLASSES: dict[type, type[LoadedModel]] = {}


def _class(base: type) -> type[LoadedModel]:
    """A subclass of :class:`LoadedModel` and a library's class.

    It has the name of the library's class, since transformers writes it into configurations.
    """
    if base not in _CLASSES:
        own = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
        _CLASSES[base] = cast("type[LoadedModel]", type(base.__name__, (LoadedModel, base), own))
    return _CLASSES[base]
