"""Plain text to token ids, with what the tokenizer adds kept apart from what the text says."""

from __future__ import annotations

from forq.errors import DataError, FormatError
from forq.tokens import Tokenizer


def bare(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of the text alone.

    Raises:
        DataError: the text holds half a surrogate pair, which no encoding can hold.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"expected text, found half a surrogate pair (U+{ord(text[error.start]):04X}) at character "
            f"{error.start}: {text[max(0, error.start - 20) : error.start]!r}…"
        ) from error
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def prefix(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What the tokenizer itself puts in front of a text: BOS, or nothing."""
    return frame(tokenizer)[0]


def frame(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer itself puts in front of a text and behind it."""
    full, inner = list(tokenizer("a", verbose=False)["input_ids"]), bare(tokenizer, "a")
    start = next((i for i in range(len(full)) if full[i : i + len(inner)] == inner), 0)
    return tuple(full[:start]), tuple(full[start + len(inner) :])


def end_of_text(tokenizer: Tokenizer) -> int | None:
    """The id of the tokenizer's EOS, or None where it has none.

    Raises:
        FormatError: the tokenizer names an EOS that its vocabulary does not hold.
    """
    token = getattr(tokenizer, "eos_token", None)
    if token is None:
        return None
    # Looked up rather than read from ``eos_token_id``, so that a checked tokenizer can refuse an id without a row.
    found = tokenizer.convert_tokens_to_ids(token)
    if found is None:
        raise FormatError(f"the tokenizer names {token!r} as its EOS, which its vocabulary does not hold")
    return int(found)
