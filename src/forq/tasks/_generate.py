"""Continuing texts token by token; the keys and values of what was read are kept."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from forq.losses import bent
from forq.tasks import Tokenizer

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
    device = lm.device
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    seen = (torch.arange(longest, device=device) >= longest - lengths[:, None]).long()
    places = "position_ids" in inspect.signature(lm.base_model.forward).parameters
    texts: list[list[int]] = [[] for _ in prompts]
    writing = set(range(len(prompts)))
    cache = None
    with torch.inference_mode():
        for _ in range(count):
            told = {"position_ids": (seen.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]} if places else {}
            out = lm.base_model(input_ids=ids, attention_mask=seen, past_key_values=cache, use_cache=True, **told)
            cache = out.past_key_values
            tokens = pick(bent(lm.config, lm.get_output_embeddings()(out.last_hidden_state[:, -1]).float()))
            writing = {row for row in writing if not ends(tokens[row])}
            for row in writing:
                texts[row].append(tokens[row])
            if not writing:
                break
            ids = torch.tensor(tokens, device=device)[:, None]
            seen = torch.cat([seen, seen.new_ones(len(prompts), 1)], dim=1)
    return texts


def ending(tokenizer: Tokenizer, *, line: bool) -> Callable[[int], bool]:
    """Whether a token ends a text: the tokenizer's end of text, and with ``line`` any that holds a new line."""
    stop = getattr(tokenizer, "eos_token_id", None)

    @lru_cache(maxsize=4096)
    def ends(token: int) -> bool:
        return token == stop or (line and "\n" in tokenizer.decode([token]))

    return ends
