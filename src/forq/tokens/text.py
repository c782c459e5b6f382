"""Token ids of plain texts, separate from the tokens that the tokenizer adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

from forq.errors import ConfigError, DataError, FormatError
from forq.tokens import Tokenizer


def bare(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of the text, without added tokens.

    Raises:
        DataError: the text holds half a surrogate pair, which cannot be encoded.
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
    """The tokens that the tokenizer adds before a text: BOS, or nothing."""
    return frame(tokenizer)[0]


def frame(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens that the tokenizer adds before and behind a text."""
    full, inner = list(tokenizer("a", verbose=False)["input_ids"]), bare(tokenizer, "a")
    start = next((i for i in range(len(full)) if full[i : i + len(inner)] == inner), 0)
    return tuple(full[:start]), tuple(full[start + len(inner) :])


def begins(tokens: Sequence[int], front: tuple[int, ...]) -> bool:
    """Whether a text already begins with what the tokenizer would put in front of it."""
    return bool(front) and tuple(tokens[: len(front)]) == front


def unframed(tokens: list[int], front: tuple[int, ...], back: tuple[int, ...]) -> list[int]:
    """A text without the tokens that the tokenizer adds around it, if it was written with them."""
    inner = tokens[len(front) :] if begins(tokens, front) else tokens
    return inner[: len(inner) - len(back)] if back and tuple(inner[-len(back) :]) == back else inner


def keeps_end(tokenizer: Tokenizer) -> bool:
    """Whether a text that is too long for the tokenizer loses its beginning, and not its end."""
    return getattr(tokenizer, "truncation_side", "right") == "left"


def shortened(tokens: list[int], room: int, *, keeps_end: bool) -> list[int]:
    """At most ``room`` tokens of a text: its beginning, or its end."""
    return tokens[max(0, len(tokens) - room) :] if keeps_end else tokens[:room]


def opening(tokens: Sequence[int], front: tuple[int, ...], bos: int | None) -> int:
    """Number of tokens at the beginning of a text that stay if its left is cut: the tokenizer's own, or BOS.

    Args:
        front: the tokens that the tokenizer adds before a text.
        bos: the id of BOS, which a text may begin with although the tokenizer adds none.
    """
    return len(front) if begins(tokens, front) else int(tuple(tokens[:1]) == (bos,))


def end_of_text(tokenizer: Tokenizer) -> int | None:
    """The id of the tokenizer's EOS; None if it has no EOS.

    Raises:
        FormatError: the tokenizer names an EOS that its vocabulary does not hold.
    """
    token = getattr(tokenizer, "eos_token", None)
    if token is None:
        return None
    # Looked up rather than read from ``eos_token_id``, so that a checked tokenizer can refuse an id without a row.
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None:
        raise FormatError(f"the tokenizer names {token!r} as its EOS, which its vocabulary does not hold")
    return int(token_id)


def require_apart(tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Refuse texts that must differ, as the names of classes must, and have the same tokens.

    Raises:
        ConfigError: two of them do.
    """
    if len({tuple(bare(tokenizer, text)) for text in texts}) < len(texts):
        raise ConfigError(
            f"expected other tokens for each class, found the same tokens for two of {', '.join(map(repr, texts))}; "
            "choose words that the model's tokenizer tells apart"
        )


class PairFrame(NamedTuple):
    """The tokens that a tokenizer adds around two texts, and whether it gives the second another type."""

    front: tuple[int, ...]
    middle: tuple[int, ...]
    back: tuple[int, ...]
    typed: bool

    @property
    def length(self) -> int:
        """Number of added tokens."""
        return len(self.front) + len(self.middle) + len(self.back)


def pair_frame(tokenizer: Tokenizer) -> PairFrame:
    """How the tokenizer joins two texts; one that has no way of its own puts them one behind the other."""
    encoding = cast(Callable[..., Mapping[str, list[int]]], tokenizer)("a", text_pair="b", verbose=False)
    full, first, second = list(encoding["input_ids"]), bare(tokenizer, "a"), bare(tokenizer, "b")
    places = [
        (left, right)
        for left in range(len(full))
        if full[left : left + len(first)] == first
        for right in range(left + len(first), len(full))
        if full[right : right + len(second)] == second
    ]
    left, right = places[0]
    types = encoding.get("token_type_ids") or [0] * len(full)
    return PairFrame(
        tuple(full[:left]),
        tuple(full[left + len(first) : right]),
        tuple(full[right + len(second) :]),
        types[right] == 1,
    )
