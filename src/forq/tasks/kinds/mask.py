"""Classification by the word at a mask (LM-BFF, arXiv 2012.15723; MeZO's prompts for RoBERTa)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forq.tasks.rows.sentences import Texts, hidden


@dataclass(frozen=True, slots=True)
class Mask:
    """Reads the class from the logits at the last mask of a row.

    Attributes:
        token: token id of the mask.
        words: token id of each class's word.
    """

    token: int
    words: tuple[int, ...]

    def learned(self, tokens: Sequence[int]) -> tuple[bool, ...]:
        """True for the last mask, False for all other tokens."""
        last = max((place for place, token in enumerate(tokens) if token == self.token), default=-1)
        return tuple(place == last for place in range(len(tokens)))

    def logits(self, model: nn.Module, batch: Texts) -> Tensor:
        """The head's logits for the words: fp32 [rows, classes].

        Their softmax equals the softmax of the words' log-probabilities, because both differ by a
        constant per row.
        """
        place = torch.arange(batch.input_ids.shape[1])
        column = torch.where(batch.input_ids == self.token, place, -1).max(dim=1).values
        states = hidden(model, batch)
        at = states[torch.arange(len(states), device=states.device), column.to(states.device)]
        # BERT's head is named cls; that of the other families is named lm_head.
        children = dict(model.named_children())
        logits: Tensor = (children.get("cls") or children["lm_head"])(at[:, None])
        return logits[:, 0, list(self.words)].float()
