"""Continuing texts token by token; the keys and values of what was read are kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from forq.tasks import Tokenizer
from forq.tasks.objectives.losses import bent

Pick = Callable[[Tensor], list[int]]
"""From logits [rows, vocabulary] to the next token of each row."""


def likeliest(logits: Tensor) -> list[int]:
    """The greedy choice; of equals the first token of the vocabulary."""
    found: list[int] = logits.argmax(dim=1).tolist()
    return found


def written(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    count: int,
    *,
    ends: Callable[[int], bool] = lambda token: False,
    pick: Pick = likeliest,
) -> list[list[int]]:
    """Tokens after each prompt: ``count`` of them, or those before one that ``ends`` the text.

    Rows are padded on the left, where nobody looks, and each counts its positions from its own first token: a row's
    text does not depend on its neighbours. A checkpoint's own generation settings (sampling, penalties) play no part.

    Args:
        model: a causal language model of transformers, in eval mode.
        prompts: one token or more each.
        count: fewer are written where the model's positions end.
    """
    lm: Any = model
    limit = getattr(lm.config, "max_position_embeddings", None)
    longest = max(map(len, prompts))
    # The last token that is written is not read any more.
    if limit is not None and longest + count - 1 > limit:
        if len(prompts) > 1:  # how far one can go is not its neighbours' affair
            return [written(model, [prompt], count, ends=ends, pick=pick)[0] for prompt in prompts]
        count = max(0, limit - longest + 1)
    read = lm.reader(prompts) if hasattr(lm, "reader") else _Cached(lm, prompts)
    texts: list[list[int]] = [[] for _ in prompts]
    writing = set(range(len(prompts)))
    tokens: list[int] | None = None
    with torch.inference_mode():
        for _ in range(count):
            tokens = pick(read(tokens))
            writing = {row for row in writing if not ends(tokens[row])}
            for row in writing:
                texts[row].append(tokens[row])
            if not writing:
                break
    return texts


class _Cached:
    """Rows of a model of transformers that grow, keys and values kept; from a token each to the next one's logits."""

    def __init__(self, lm: Any, prompts: Sequence[Sequence[int]]) -> None:
        device, longest = lm.device, max(map(len, prompts))
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        self._lm, self._cache = lm, None
        self._ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        self._seen = (torch.arange(longest, device=device) >= longest - lengths[:, None]).long()
        self._places = "position_ids" in inspect.signature(lm.base_model.forward).parameters

    def __call__(self, tokens: Sequence[int] | None) -> Tensor:
        lm = self._lm
        if tokens is not None:
            self._ids = self._ids.new_tensor(tokens)[:, None]
            self._seen = torch.cat([self._seen, self._seen.new_ones(len(tokens), 1)], dim=1)
        places = (self._seen.cumsum(1) - 1).clamp(min=0)[:, -self._ids.shape[1] :]
        told = {"position_ids": places} if self._places else {}
        out = lm.base_model(
            input_ids=self._ids, attention_mask=self._seen, past_key_values=self._cache, use_cache=True, **told
        )
        self._cache = out.past_key_values
        return bent(lm.config, lm.get_output_embeddings()(out.last_hidden_state[:, -1]).float())


def ending(tokenizer: Tokenizer, ends: Collection[int], *, line: bool) -> Callable[[int], bool]:
    """Whether a token ends a text: one of ``ends``, and with ``line`` any that holds a new line."""

    @lru_cache(maxsize=4096)
    def stops(token: int) -> bool:
        return token in ends or (line and "\n" in tokenizer.decode([token]))

    return stops
