"""Continue texts token by token."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from forq.tasks import Tokenizer
from forq.tokens.pretrained import language_model

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
        model: a causal language model, from :func:`forq.load` or of transformers, in eval mode.
        prompts: one token or more each.
        count: fewer are written where the model's positions end.
    """
    lm = language_model(model)
    limit = getattr(lm.config, "max_position_embeddings", None)
    longest = max(map(len, prompts))
    # The last token that is written is not read any more.
    if limit is not None and longest + count - 1 > limit:
        if len(prompts) > 1:  # how far one can go is not its neighbours' affair
            return [written(model, [prompt], count, ends=ends, pick=pick)[0] for prompt in prompts]
        count = max(0, limit - longest + 1)
    read = lm.reader(prompts)
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


def ending(tokenizer: Tokenizer, ends: Collection[int], *, line: bool) -> Callable[[int], bool]:
    """Whether a token ends a text: one of ``ends``, and with ``line`` any that holds a new line."""

    @lru_cache(maxsize=4096)
    def stops(token: int) -> bool:
        return token in ends or (line and "\n" in tokenizer.decode([token]))

    return stops
