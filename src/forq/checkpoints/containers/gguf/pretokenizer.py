r"""Pre-tokenizers: how text is split into words, for each value of ``tokenizer.ggml.pre``.

llama.cpp defines the meaning of a value, and the patterns produce the same words. Each pattern of an
entry splits the pieces that the patterns before it left. Text that matches no alternative is a word too.

The patterns follow peculiarities of llama.cpp: its classes of upper-case or lower-case letters match all
letters, its ``\d`` and ``\b`` match ASCII only, and its spaces beyond ASCII belong to no range.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Splitting:
    """A pre-tokenizer.

    Attributes:
        patterns: regular expressions (Oniguruma), applied one after another.
        whole_words: whether a word that is a token is used as it is, without merges.
        adds_bos: whether BOS begins a text if the file does not say.
        spells_bytes: whether tokens spell bytes with GPT-2's letters; otherwise they are plain text with ▁
            for a space.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool = False
    spells_bytes: bool = True


def _characters(spans: str) -> str:
    """Code points and ranges, given in hexadecimal, as the inside of a character class."""
    return "".join("-".join(rf"\x{{{end}}}" for end in span.split("-")) for span in spans.split())


_NEWER = _characters(
    "897 1B4E-1B4F 1B7F 1C89-1C8A 2427-2429 31E4-31E5 A7CB-A7CD A7DA-A7DC 105C0-105F3 10D40-10D65 "
    "10D69-10D85 10D8E-10D8F 10EC2-10EC4 10EFC 11380-11389 1138B 1138E 11390-113B5 113B7-113C0 113C2 "
    "113C5 113C7-113CA 113CC-113D5 113D7-113D8 113E1-113E2 116D0-116E3 11BC0-11BE1 11BF0-11BF9 11F5A "
    "13460-143FA 16100-16139 16D40-16D79 18CFF 1CC00-1CCF9 1CD00-1CEB3 1E5D0-1E5FA 1E5FF 1F8B2-1F8BB "
    "1F8C0-1F8C1 1FA89 1FA8F 1FABE 1FAC6 1FADC 1FADF 1FAE9 1FBCB-1FBEF"
)
"""Characters new in Unicode 16. llama.cpp uses the tables of Unicode 15.1; the regex engine uses newer ones."""


def expression(pattern: str) -> str:
    """A pattern whose character classes are restricted to llama.cpp's tables."""
    return re.sub(r"\\p\{\w+\}", lambda match: rf"[{match[0]}&&[^{_NEWER}]]", pattern)


# English contractions in either case. (?i:…) would also take the long s, ſ, which llama.cpp does not.
_CONTRACTION = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LONG_SPACES = "|".join(rf"\s{{{size}}}(?!\S)" for size in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2"))

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}{{1,3}}|{_SIGNS}[\r\n]*|{_SPACES}"
_QWEN2 = rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}|{_SIGNS}[\r\n]*|{_SPACES}"
_QWEN35 = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_JAIS2 = rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}{{1,3}}|{_SIGNS}[\r\n]*|\s*[\r\n]+|{_LONG_SPACES}|\s"
_MINICPM5 = rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}+|{_SIGNS}[\r\n]*|{_SPACES}"
_UFAKZEKA = rf"{_LETTERS}|\p{{N}}|{_SIGNS}[\r\n]*|{_SPACES}"
_BAILING = rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}|{_SIGNS}[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_SEED = rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
_EXAONE_MOE = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+"
    rf"|\p{{N}}|{_SIGNS}[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_K2_HORIZON = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}\x{{200C}}\x{{200D}}]+"
    rf"|\p{{N}}{{1,3}}|{_SIGNS}[\r\n]*|{_SPACES}"
)


def _cased(letter: str, suffix: str, digits: str) -> str:
    """Words that are split where a capital follows a small letter; only ASCII letters have a case here."""
    upper, lower = rf"(?:(?={letter})[^a-z])", rf"(?:(?={letter})[^A-Z])"
    before = r"[^\r\n\p{L}\p{N}]?"
    words = rf"{before}{upper}*{lower}+{suffix}|{before}{upper}+{lower}*{suffix}"
    return rf"{words}|{digits}|{_SIGNS}[\r\n/]*|{_SPACES}"


def _caseless(digits: str) -> str:
    """Words of letters and marks, with a following contraction."""
    return (
        rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+(?:{_CONTRACTION})?"
        rf"|{digits}|{_SIGNS}[\r\n/]*|{_SPACES}"
    )


_THREES = r"[^\p{N}]*\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
"""Digits in groups of three from their end; text before them joins the first group."""

_HAN = _characters(
    "4E00-9FFF 3400-4DBF 20000-2A6DF 2A700-2B73F 2B740-2B81F 2B820-2CEAF 2CEB0-2EBEF F900-FAFF 2F800-2FA1F"
)
_KIMI = (
    rf"[{_HAN}]+|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}&&[^{_HAN}]]+(?:{_CONTRACTION})?"
    rf"|\p{{N}}{{1,3}}|{_SIGNS}[\r\n]*|{_SPACES}"
)

_ASCII_SIGN = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
_DEEPSEEK3 = (
    rf"{_ASCII_SIGN}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
)
_SPARK = (
    rf"{_ASCII_SIGN}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+"
)
_CJK = rf"[{_characters('4E00-9FA5 800-4E00 AC00-D7FF')}&&[^\s]]+"
_CJK_KANA = _characters("4E00-9FA5 3040-309F 30A0-30FF")
_DEEPSEEK_LETTER = _characters(
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376-377 37B-37D 37F 386 388-38A "
    "38C 38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF "
    "1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D "
    "1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 "
    "1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F "
    "2145-2149 214E 2183-2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2-2CF3 A640-A66D A680-A69B A722-A76F "
    "A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 "
    "104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943"
)
_YOUTU = rf"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[{_CJK_KANA}]+"
# AFMoE means the compatibility ideographs from F900 on; llama.cpp's pattern has the plain ideograph 8C48 in that place.
_AFMOE_ASIAN = _characters(
    "4E00-9FFF 3400-4DBF 8C48-FAFF 3040-309F 30A0-30FF FF65-FF9F 2F00-2FDF E40-E7F E80-EFF 1780-17FF 1000-109F "
    "AA60-AA7F A9E0-A9FF AC00-D7AF 1100-11FF"
)
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_LINES = r"[^\n]+|[\n]+"

_ENTRIES: tuple[tuple[str, Splitting], ...] = (
    ("default", Splitting((r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))),
    (
        "gpt-2 phi-2 jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe gigachat a.x-4.0 mellum "
        "modern-bert mpt olmo jais trillion granite-docling exaone4",
        Splitting((_GPT2,)),
    ),
    ("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", Splitting((r"\p{N}", _GPT2))),
    (
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        Splitting((_LLAMA3,), whole_words=True, adds_bos=True),
    ),
    ("dbrx smaug-bpe chatglm-bpe", Splitting((_LLAMA3,))),
    ("glm4 glm5", Splitting((_LLAMA3,), whole_words=True)),
    (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
        Splitting((_QWEN2,)),
    ),
    ("qwen35", Splitting((_QWEN35,))),
    ("laguna", Splitting((_LINES, _QWEN2))),
    ("ufakzeka", Splitting((_UFAKZEKA,))),
    ("bailingmoe bailingmoe2 llada-moe", Splitting((_BAILING,))),
    ("seed-coder", Splitting((_SEED,))),
    ("minicpm5", Splitting((r"\p{N}{1,3}", _MINICPM5), whole_words=True)),
    ("jais-2", Splitting((_JAIS2,))),
    ("exaone-moe", Splitting((_EXAONE_MOE,))),
    ("k2-horizon", Splitting((_K2_HORIZON,))),
    ("kimi-k2", Splitting((_KIMI,))),
    ("tekken", Splitting((_cased(r"\p{L}", "", r"\p{N}"),), whole_words=True, adds_bos=True)),
    (
        "gpt-4o llama4 kanana2 talkie minimax-m2",
        Splitting((_cased(r"\p{L}", f"(?:{_CONTRACTION})?", r"\p{N}{1,3}"),)),
    ),
    (
        "granite-embed-multi-97m",
        Splitting((_cased(r"[\p{L}\p{M}]", f"(?:{_CONTRACTION})?", r"\p{N}{1,3}"),), whole_words=True),
    ),
    ("tiny_aya cohere2moe", Splitting((_THREES, _caseless(r"\p{N}{1,3}")))),
    ("youtu", Splitting((_YOUTU, _caseless(r"\p{N}")), whole_words=True)),
    (
        "deepseek-llm",
        Splitting(
            (
                r"[\r\n]",
                rf"\s?[{_DEEPSEEK_LETTER}]+",
                r"\s?[!-/:-~！-／：-～‘-‟、-。]+",
                r"\s+\z",
                _CJK,
                r"\p{N}+",
            )
        ),
    ),
    ("deepseek-coder", Splitting((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, r"\p{N}"))),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", Splitting((r"\p{N}{1,3}", f"[{_CJK_KANA}]+", _DEEPSEEK3))),
    ("spark2_5", Splitting((r"\p{N}{1,3}", f"[{_CJK_KANA}]+", _SPARK, r"\p{N}"))),
    ("afmoe", Splitting((_THREES, f"[{_AFMOE_ASIAN}]+", _DEEPSEEK3))),
    ("falcon", Splitting((r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]"))),
    ("bloom poro-chat gpt3-finnish", Splitting((_BLOOM,))),
    ("viking", Splitting((_BLOOM, r"\p{N}"))),
    ("superbpe", Splitting((r"\p{N}+", "(?=(?:[0-9]{3})+(?![0-9]))"))),
    (
        "chameleon",
        Splitting(
            (
                "<sentinel:[0-9]+>",
                "IMGIMG[A-I]{1,4}Z",
                r"[\t\n]|    |  ",
                r"\p{N}",
                r"[\p{P}!-/:-@\[-`{-~]",
                _GPT2,
            ),
            adds_bos=True,
        ),
    ),
    ("gemma4 granite-embed-multi-311m", Splitting((_LINES,), adds_bos=True, spells_bytes=False)),
    ("sarvam-moe", Splitting((_LINES,), spells_bytes=False)),
)

SPLITTINGS: Mapping[str, Splitting] = {name: entry for names, entry in _ENTRIES for name in names.split()}
"""The pre-tokenizer of each value of ``tokenizer.ggml.pre``."""
