"""Continue texts token by token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, lru_cache

import torch
from torch import Tensor, nn

from forq.tasks import Tokenizer
from forq.tokens.pretrained import language_model

log = logging.getLogger("forq")

_NEUTRAL: Mapping[str, object] = {
    **dict.fromkeys(("repetition_penalty", "guidance_scale", "num_beams"), 1),
    **dict.fromkeys(("no_repeat_ngram_size", "min_length", "min_new_tokens"), 0),
    **{name: [] for name in ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "stop_strings")},
    **dict.fromkeys(("sequence_bias", "exponential_decay_length_penalty", "dola_layers", "watermarking_config")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id")),
}
"""Generation settings that change the likeliest text too, and the value that leaves it as it is, besides None."""

Pick = Callable[[Tensor], list[int]]
"""Chooses the next token of each row from logits [rows, vocabulary]."""


def likeliest(logits: Tensor) -> list[int]:
    """The most likely token of each row; if several are equal, the first in the vocabulary."""
    tokens: list[int] = logits.argmax(dim=1).tolist()
    return tokens


def written(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    count: int,
    *,
    ends: Callable[[int], bool] = lambda token: False,
    pick: Pick = likeliest,
) -> list[list[int]]:
    """Generate up to ``count`` tokens after each prompt, or fewer if a token ends the text.

    Rows are padded on the left. The padding is masked, and each row counts positions from its own
    first token, so a row's text does not depend on the other rows. The checkpoint's generation
    settings (sampling, penalties) are not used: a penalty on repetition would make a score depend on
    it, and a run's loss with it. A warning names those that change the likeliest text.

    Args:
        model: a causal language model from :func:`forq.load` or transformers, in eval mode.
        prompts: token ids; each prompt has at least one.
        count: maximum number of new tokens; fewer if the model's positions run out.
        ends: whether a token ends the text. That token is not returned.
        pick: chooses the next tokens from the logits.
    """
    lm = language_model(model)
    _warn(_not_followed(model))
    limit = getattr(lm.config, "max_position_embeddings", None)
    longest = max(map(len, prompts))
    # The last generated token is not fed back, so it needs no position.
    if limit is not None and longest + count - 1 > limit:
        if len(prompts) > 1:  # the limit of a row must not depend on the other rows
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


def _not_followed(model: nn.Module) -> str:
    """The generation settings of a model that change the likeliest text, with their values; empty without any."""
    settings = getattr(model, "generation_config", None)
    found = {name: getattr(settings, name, None) for name in _NEUTRAL}
    return ", ".join(f"{name} {value}" for name, value in found.items() if value not in (None, _NEUTRAL[name]))


@cache
def _warn(settings: str) -> None:
    """Warn of settings, once."""
    if settings:
        log.warning(
            "generation_config.json sets %s, which transformers' generate follows even without sampling; forq writes "
            "texts by the model's probabilities alone",
            settings,
        )


def ending(tokenizer: Tokenizer, ends: Collection[int], *, line: bool) -> Callable[[int], bool]:
    """A test for tokens that end a text: those in ``ends``, and with ``line`` any that contains a newline."""

    @lru_cache(maxsize=4096)
    def stops(token: int) -> bool:
        return token in ends or (line and "\n" in tokenizer.decode([token]))

    return stops
