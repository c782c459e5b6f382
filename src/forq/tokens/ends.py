"""Which tokens end a generated text."""

from __future__ import annotations

from typing import Any

from forq.tokens import Tokenizer
from forq.tokens.template import ChatTemplate


def ends(tokenizer: Tokenizer, template: ChatTemplate | None = None) -> frozenset[int]:
    """Ids that end a text: the tokenizer's EOS, those of generation_config.json, and the chat template's end of turn.

    Args:
        tokenizer: if opened with :mod:`forq.models.tokenizer`, it also knows the ids of generation_config.json.
        template: the chat template, if not the tokenizer's own.
    """
    known: Any = tokenizer
    ids = {getattr(known, "eos_token_id", None), *getattr(known, "generation_ends", ())}
    return frozenset(token for token in ids if token is not None) | frozenset(turn_ends(tokenizer, template))


def turn_ends(tokenizer: Tokenizer, template: ChatTemplate | None = None) -> tuple[int, ...]:
    """The id of the chat template's end-of-turn token for the assistant; empty without a template."""
    known: Any = tokenizer
    if template is None:
        if not getattr(known, "chat_template", None):
            return ()
        template = ChatTemplate(known)
    return tuple(int(known.convert_tokens_to_ids(token)) for token in template.end[-1:])
