"""Classes told apart by the word at a mask (LM-BFF, arXiv 2012.15723; MeZO's prompts for RoBERTa)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forq.tasks.rows.sentences import Texts, hidden


@dataclass(frozen=True, slots=True)
class Mask:
    """Reads classes off the last mask of a row.

    Attributes:
        token: id of the mask.
        words: id of each class's word.
    """

    token: int
    words: tuple[int, ...]

    def learned(self, tokens: Sequence[int]) -> tuple[bool, ...]:
        last = max((place for place, token in enumerate(tokens) if token == self.token), default=-1)
        return tuple(place == last for place in range(len(tokens)))

    def logits(self, model: nn.Module, batch: Texts) -> Tensor:
        """The head's logits of the words: fp32 [rows, classes].

        A softmax over them is one over the words' log-probabilities: what normalises these is the same for all.
        """
        place = torch.arange(batch.input_ids.shape[1])
        column = torch.where(batch.input_ids == self.token, place, -1).max(dim=1).values
        states = hidden(model, batch)
        at = states[torch.arange(len(states), device=states.device), column.to(states.device)]
        # BERT calls its head cls, the others call it lm_head.
        children = dict(model.named_children())
        logits: Tensor = (children.get("cls") or children["lm_head"])(at[:, None])
        return logits[:, 0, list(self.words)].float()
