"""Which tokens end a generated text."""

from __future__ import annotations

from forq.tokens import Tokenizer
from forq.tokens.template import ChatTemplate


def ends(tokenizer: Tokenizer, template: ChatTemplate | None = None) -> frozenset[int]:
    """Ids that end a text: the tokenizer's EOS, those of generation_config.json, and the chat template's end of turn.

    Args:
        tokenizer: if opened with :mod:`forq.models.tokenizer`, it also knows the ids of generation_config.json.
        template: the chat template, if not the tokenizer's own.
    """
    ids = {getattr(tokenizer, "eos_token_id", None), *getattr(tokenizer, "generation_ends", ())}
    return frozenset(token for token in ids if token is not None) | frozenset(turn_ends(tokenizer, template))


def turn_ends(tokenizer: Tokenizer, template: ChatTemplate | None = None) -> tuple[int, ...]:
    """The id of the chat template's end-of-turn token for the assistant; empty without a template."""
    if template is None:
        if not getattr(tokenizer, "chat_template", None):
            return ()
        template = ChatTemplate(tokenizer)
    return tuple(_id(tokenizer, token) for token in template.end[-1:])


def _id(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.convert_tokens_to_ids(token)
    assert number is not None  # the template was rendered with the tokenizer's own tokens
    return number
