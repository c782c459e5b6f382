"""Which tokens end a text that a model writes."""

from __future__ import annotations

from typing import Any

from forq.tokens import Tokenizer
from forq.tokens.template import ChatTemplate


def ends(tokenizer: Tokenizer, template: ChatTemplate | None = None) -> frozenset[int]:
    """Ids that end a text: the tokenizer's EOS, those of generation_config.json, and the chat template's end of turn.

    Args:
        tokenizer: where it was opened beside a checkpoint (:mod:`forq.models.tokenizer`), it knows the latter's
            generation_config.json.
        template: in place of the tokenizer's own.
    """
    known: Any = tokenizer
    found = {getattr(known, "eos_token_id", None), *getattr(known, "generation_ends", ())}
    return frozenset(one for one in found if one is not None) | frozenset(turn_ends(tokenizer, template))


def turn_ends(tokenizer: Tokenizer, template: ChatTemplate | None = None) -> tuple[int, ...]:
    """The id of the token that closes the assistant's turns, by the chat template; nothing where there is none."""
    known: Any = tokenizer
    if template is None:
        if not getattr(known, "chat_template", None):
            return ()
        template = ChatTemplate(known)
    return tuple(int(known.convert_tokens_to_ids(token)) for token in template.end[-1:])
