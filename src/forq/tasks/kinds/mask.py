"""Classification by the word at a mask (LM-BFF, arXiv 2012.15723; MeZO's prompts for RoBERTa)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forq.errors import ConfigError
from forq.tasks import Tokenizer
from forq.tasks.kinds.examples import Example
from forq.tasks.rows.labelled import Row
from forq.tasks.rows.sentences import Texts, hidden
from forq.tokens.text import bare, frame, unframed


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


class Masked:
    """Encodes prompts with a mask in place of the word; a prompt that is too long loses its beginning.

    A mask follows the prompt, unless the prompt's end has one.

    Args:
        words: one word per class.
        keep: the end of the prompt, which truncation never removes.
        part: the part a prompt loses, in words.

    Raises:
        ConfigError: the tokenizer has no mask, a word is not a single token, or ``max_length`` is too small.
    """

    def __init__(self, tokenizer: Tokenizer, words: tuple[str, ...], keep: str, part: str, max_length: int) -> None:
        mask = getattr(tokenizer, "mask_token", None)
        if mask is None:
            raise ConfigError(
                "task.by=mask: expected a tokenizer with a mask token, found none; set task.by=similarity"
            )
        self.tokenizer, self.part = tokenizer, part
        self.ending = "" if str(mask) in keep else f" {mask}."
        self.front, self.back = frame(tokenizer)
        self.room = max_length - len(self.front) - len(self.back)
        token = int(getattr(tokenizer, "mask_token_id"))  # noqa: B009
        self.reader = Mask(token, tuple(self._single(word) for word in words))
        self.description: dict[str, object] = {"by": "mask", "words": list(words)}
        least = len(bare(tokenizer, self._ask(keep)))
        if self.room < least:
            needed = max_length - self.room + least
            raise ConfigError(f"max_length must be {needed} or more for {keep!r} and a mask, found {max_length}")

    def row(self, example: Example) -> Row:
        """The tokens of an example."""
        tokens = unframed(bare(self.tokenizer, self._ask(example.prompt)), self.front, self.back)
        cut = max(0, len(tokens) - self.room)
        return Row((*self.front, *tokens[cut:], *self.back), example.label, cut)

    def _ask(self, prompt: str) -> str:
        return prompt + self.ending

    def _single(self, word: str) -> int:
        tokens = bare(self.tokenizer, word)
        if len(tokens) != 1:
            raise ConfigError(
                f"the word {word!r} must be one token to stand at a mask, found {len(tokens)}; set task.by=similarity"
            )
        return tokens[0]
