"""How many captions are longer than a pipeline's text encoders read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def cut(pipe: Any, captions: Sequence[str], tokens: int) -> Iterator[str]:
    """A sentence for each kind of text encoder that reads only the beginning of some captions.

    Args:
        pipe: a pipeline of Stable Diffusion 3 with its text encoders.
        tokens: maximum number of T5 tokens.
    """
    encoders = [("CLIP", pipe.tokenizer, pipe.tokenizer_max_length)]
    encoders += [("T5", pipe.tokenizer_3, tokens)] if pipe.text_encoder_3 is not None else []
    for name, tokenizer, limit in encoders:
        long = sum(len(tokenizer(caption)["input_ids"]) > limit for caption in captions)
        if long:
            yield f"{long:,} of {len(captions):,} captions are longer than {limit} tokens, and {name} reads these alone"
