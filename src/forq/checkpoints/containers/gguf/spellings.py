"""What llama.cpp reads off the spelling of a token: that it ends a generation, or is special.

Types of tokens stand in a GGUF file, and some files have them wrong. llama.cpp changes them for the
spellings listed here. No other spelling means anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens, as numbers in ``tokenizer.ggml.token_type``."""

SPECIAL = (UNKNOWN, CONTROL, USER_DEFINED)
"""Types of tokens that are found in a text before anything else."""

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
"""Spellings that end a generation, whatever the type in the file."""

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
"""Spellings that frame a text to be filled in, taken where the file has no key for them."""

_FILL_ENDS = ("fim_pad", "fim_rep", "fim_sep")
_SHOWN = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
"""Spellings that are tokens of the user's, whatever the type in the file."""


def respelt(ids: Mapping[str, int], types: list[int], special: Mapping[str, int | None]) -> set[int]:
    """Change types by spellings, in place, and give the ids that end a generation."""
    fill = dict(special)
    for name, spellings in FILL.items():
        if fill[name] is None:
            found = sorted(ids[spelling] for spelling in spellings if spelling in ids)
            if found:
                fill[name] = found[0]
                types[found[0]] = CONTROL
    spelt = {ids[spelling] for spelling in _ENDS if spelling in ids}
    for token in spelt:
        types[token] = CONTROL
    for spelling in _SHOWN:
        if spelling in ids:
            types[ids[spelling]] = USER_DEFINED
    named = (fill[name] for name in ("eos", "eot", "eom", *_FILL_ENDS))
    ends = spelt | {token for token in named if token is not None}

    def ending(*spellings: str) -> bool:
        return any(ids.get(spelling) in ends for spelling in spellings)

    # Vocabularies in which a message, or text that is struck through, ends with such a token.
    if ending("<|end|>") and ending("<|call|>", "<|calls|>") and ending("<|return|>", "<|flush|>"):
        ends.remove(ids["<|end|>"])
        types[ids["<|end|>"]] = USER_DEFINED
    if ending("</s>") and ending("<|tool_response>", "<|plamo:eos|>"):
        ends.remove(ids["</s>"])
        types[ids["</s>"]] = NORMAL
    return ends


def overlap(special: Sequence[str]) -> tuple[str, str] | None:
    """Two spellings of which one ends as the other begins; None if there are none.

    Where they meet in a text it matters which is found first. Runs of one character do not count:
    the longest is found first either way.
    """
    begins = {text[:end]: text for text in special if len(set(text)) > 1 for end in range(1, len(text))}
    for text in special:
        for start in range(1, len(text)):
            other = begins.get(text[start:], text)
            if other != text:
                return text, other
    return None
