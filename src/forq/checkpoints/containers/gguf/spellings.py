"""Types that llama.cpp gives to tokens by their spelling: end of generation, or special.

Some GGUF files have wrong token types. llama.cpp corrects the types of the spellings listed here, and
of no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens, as numbers in ``tokenizer.ggml.token_type``."""

SPECIAL = (UNKNOWN, CONTROL, USER_DEFINED)
"""Types of tokens that are matched in a text before it is split."""

_ENDS = frozenset(
    [
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<｜end▁of▁sentence｜>",
        "[e~[",
        "<|ifm|im_end|>",
    ]
)
"""Spellings that end a generation, regardless of the type in the file."""

FILL: Mapping[str, tuple[str, ...]] = {
    "fim_pre": (
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
        "<|plamo:fim_prefix|>",
    ),
    "fim_suf": (
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
        "<|plamo:fim_suffix|>",
    ),
    "fim_mid": (
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
        "<|plamo:fim_middle|>",
    ),
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>", "<|plamo:file_separator|>"),
}
"""Spellings of fill-in-the-middle tokens, used if the file has no key for them."""

_FILL_ENDS = ("fim_pad", "fim_rep", "fim_sep")
_USER_DEFINED = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
"""Spellings of user-defined tokens, regardless of the type in the file."""


def respelt(ids: Mapping[str, int], types: list[int], special: Mapping[str, int | None]) -> set[int]:
    """Correct ``types`` in place by spelling, and return the ids that end a generation."""
    fill = dict(special)
    for name, spellings in FILL.items():
        if fill[name] is None:
            candidates = sorted(ids[spelling] for spelling in spellings if spelling in ids)
            if candidates:
                fill[name] = candidates[0]
                types[candidates[0]] = CONTROL
    by_spelling = {ids[spelling] for spelling in _ENDS if spelling in ids}
    for token in by_spelling:
        types[token] = CONTROL
    for spelling in _USER_DEFINED:
        if spelling in ids:
            types[ids[spelling]] = USER_DEFINED
    named = (fill[name] for name in ("eos", "eot", "eom", *_FILL_ENDS))
    ends = by_spelling | {token for token in named if token is not None}

    def ending(*spellings: str) -> bool:
        return any(ids.get(spelling) in ends for spelling in spellings)

    # In vocabularies with the other tokens, <|end|> only ends a message, and </s> closes struck-through text.
    if ending("<|end|>") and ending("<|call|>", "<|calls|>") and ending("<|return|>", "<|flush|>"):
        ends.remove(ids["<|end|>"])
        types[ids["<|end|>"]] = USER_DEFINED
    if ending("</s>") and ending("<|tool_response>", "<|plamo:eos|>"):
        ends.remove(ids["</s>"])
        types[ids["</s>"]] = NORMAL
    return ends


def overlap(special: Sequence[str]) -> tuple[str, str] | None:
    """Two special tokens where the end of one is the beginning of the other; None if there are none.

    If they overlap in a text, the result depends on which is matched first. Runs of one character do not
    count, because the longest is always matched first.
    """
    begins = {text[:end]: text for text in special if len(set(text)) > 1 for end in range(1, len(text))}
    for text in special:
        for start in range(1, len(text)):
            overlapping = begins.get(text[start:], text)
            if overlapping != text:
                return text, overlapping
    return None
