"""Whether a graph is a causal language model: what its config.json names, and what its logits depend on.

Inputs and outputs do not tell it. The graph of a masked language model has input_ids, attention_mask and logits too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.models.graph.inputs import graph_of

_OTHER_HEADS = (
    *("ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification"),
    *("ForQuestionAnswering", "ForMultipleChoice"),
)
_MOST = 1 << 31
"""A configuration may name any number; a token id is smaller."""
_NEAR = 2.0**-6
"""Largest change of earlier logits, as a share of the change at the token that was changed."""


def check_head(ckpt: Checkpoint) -> None:
    """Refuse a graph whose config.json names another head than that of a causal language model.

    Raises:
        FormatError: it does.
    """
    named = ckpt.config.get("architectures")
    head = str(named[0]) if isinstance(named, list) and named else ""
    if head.endswith(_OTHER_HEADS):
        raise FormatError(
            f"{ckpt.path}: expected the graph of a causal language model, found {head} in config.json; tune the "
            "safetensors of this model, or export one that ends in ForCausalLM"
        )


def check_causal(ckpt: Checkpoint, forward: Callable[[Tensor], Tensor], vocabulary: int | None) -> None:
    """Refuse a graph whose logits depend on later tokens, by one forward of two rows that differ in their last token.

    The rows share a batch, since integer operators may take one scale for all of it. A graph of a fixed number of
    rows or tokens is not tried.

    Args:
        forward: logits [rows, length, vocabulary] of tokens [rows, length].
        vocabulary: number of tokens; None: not known.

    Raises:
        FormatError: they do, or the graph cannot be run.
    """
    if any(isinstance(size, int) for size in graph_of(ckpt).inputs["input_ids"].shape or ()):
        return
    # Tokens from the middle of the vocabulary are words. Its ends may hold tokens of which a model knows nothing.
    size = vocabulary if vocabulary is not None and 6 <= vocabulary < _MOST else 6
    first, second, third, other = (size * place // 6 for place in (1, 2, 3, 4))
    logits = forward(torch.tensor([[first, second, third], [first, second, other]]))
    *earlier, changed = (logits[0] - logits[1]).abs().amax(dim=1).tolist()
    if max(earlier) > _NEAR * changed:
        raise FormatError(
            f"{ckpt.path}: expected the graph of a causal language model, found one whose logits depend on later "
            "tokens, such as that of a masked language model; export a model that ends in ForCausalLM"
        )
