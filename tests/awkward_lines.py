"""A thousand odd lines for tokenizers: scripts, digits, contractions, spaces, controls, code."""

from __future__ import annotations

import random
from collections.abc import Callable

_SCRIPTS = (
    "the quick brown fox", "Größe naïve Ærøskøbing", "Привет, мир", "Καλημέρα κόσμε", "שלום עולם",
    "مرحبا بالعالم", "नमस्ते दुनिया", "বাংলা ভাষা", "தமிழ் மொழி", "తెలుగు భాష", "ภาษาไทย",
    "ພາສາລາວ", "မြန်မာဘာသာ", "ភាសាខ្មែរ", "ქართული ენა", "Հայերեն լեզու",
    "አማርኛ ቋንቋ", "漢字かな交じり文", "简体中文，标点。", "繁體中文、標點！",
    "한국어 문장입니다", "ㄱㄴㄷ ㅏㅑ", "ㄅㄆㄇ", "ﾊﾝｶｸ ｶﾅ", "ＦＵＬＬ　ｗｉｄｔｈ",
    "𐐀𐐁 𐍈 𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "ꦗꦮ ᜊᜌ", "Ȧ́b̂ç̃ d̈", "ʻokina ʼapostrophe", "𠀀𪜀𫝀 丽",
    "ſtreſs 'ſ K'K İi", "ǅ ǈ ⅷ Ⅷ ↉ ½", "𞤀𞤣𞤤𞤢𞤥", "Ⴀႁ Ꭰꭰ ᲐᲑ",
)  # fmt: skip
_DIGITS = (
    "0", "7", "42", "123", "1234", "12345", "123456", "1234567", "0012", "3.14159", "1,000,000",
    "1e-9", "0xFF", "٣٤٥٦", "१२३४", "²³¹", "½⅓", "Ⅻ", "①②③④", "１２３４", "𝟘𝟙𝟚", "1st",
    "v1.2.3", "12345abc", "abc123def4567",
)  # fmt: skip
_CONTRACTIONS = (
    "don't", "DON'T", "I'm", "I'M", "we'll", "WE'LL", "they're", "THEY'RE", "'Re", "you've",
    "You'VE", "he'd", "'D", "it's", "IT'S", "'s", "'t", "'", "''", "o'clock", "'twas", "can’t",
    "l'été", "'lL", "'rE",
)  # fmt: skip
_SPACES = (
    " ", "  ", "   ", "    ", "     ", " " * 8, " " * 17, "\t", "\t\t", " \t", "\t ", "\n", "\n\n",
    "\n\n\n", "\r\n", "\r\n\r\n", "\r", " \n", "\n ", " \n \n", "\x0b", "\x0c", "\x85", "\xa0",
    " \xa0", "\u1680", "\u2003", "\u2009", "\u2028", "\u2029", "\u202f", "\u3000", "\u3000\u3000",
    "\u200b", "\ufeff", "\u2060", "\u180e",
)  # fmt: skip
_SIGNS = (
    "!", "?!", "...", "…", "--", "—", "~", "~~~", "~/home", "^", "`code`", "```", "$5", "€5",
    "+", "<=>", "=>", "|", "||", "#", "##", "@me", "%d", "&amp;", "*", "**b**", "_", "__init__",
    "\\n", "\\", "/", "//", "://", "()", "[]", "{}", "«»", "“”", "‘’", "、。", "！？", "॥",
    "؟", "・", "°C", "©®™", "→⇒", "√∞", "♥", "─│┌", "�", ":", ";", ",", ".",
)  # fmt: skip
_EMOJI = (
    "😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇯🇵", "❤️", "☺", "1️⃣", "🧑‍💻", "🫠",
    "\u200d", "\ufe0f", "🏴󠁧󠁢󠁳󠁣󠁴󠁿",
)  # fmt: skip
_CONTROLS = (
    "\x01", "\x02\x03", "\x07", "\x08", "\x1b[0m", "\x1c", "\x1f", "\x7f", "\x80", "\x9f", "\xad",
    "\u061c", "\u202e", "\ufff9", "\ue000", "\U000e0001", "\U0010ffff", "\u0378", "\ufffe",
)  # fmt: skip
_CODE = (
    "def f(x):\n    return x", "for (int i=0;i<n;++i) {", "a[i]+=b*c;", "</div>", "<!-- x -->",
    "SELECT * FROM t;", "if x==1:\n\tpass", "camelCaseWord", "HTTPServerError", "snake_case_name",
    "kebab-case", "x = \"y\"\r\n", "λx.x", "1+1=2", "a\tb\tc", "{\"k\": [1, 2.5, null]}",
    "http://a.b/c?d=e&f=%20g", "C:\\dir\\file.txt", "#include <stdio.h>",
)  # fmt: skip
SPECIALS = (
    "<s>", "</s>", "<unk>", "[INST]", "[/INST]", "<|im_start|>", "<|im_end|>", "<|endoftext|>",
    "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>user<|end_header_id|>\n\n", "<0x0A>",
    "<0x", "▁", "▁▁", "<|", "|>", "<｜User｜>", "<sentinel:12>", "IMGIMGABZ",
    "[AVAILABLE_TOOLS]", "<SPECIAL_9>", "<|reserved_special_token_5|>",
)  # fmt: skip
_WORDS = (
    "a", "I", "the", "The", "hello", "World", "tokenizer", "unbelievable", "XMLParser", "naïve",
    "café", "x", "of",
)  # fmt: skip
_ALL = (*_SCRIPTS, *_DIGITS, *_CONTRACTIONS, *_SIGNS, *_EMOJI, *_CONTROLS, *_CODE, *SPECIALS, *_WORDS, *_SPACES)


def lines() -> list[str]:
    """The lines: every piece alone and between others, runs, and mixtures drawn with a fixed seed."""
    draw = random.Random(20261129)
    made = ["", *_ALL]
    made += [f" {piece}" for piece in _ALL] + [f"{piece} " for piece in _ALL]
    made += [f"{piece}a 1!" for piece in (*_SPACES, *_CONTROLS, *_SIGNS, *SPECIALS)]
    made += [f"a{piece}{piece}1" for piece in (*_SPACES, *_EMOJI, *SPECIALS)]
    for character in (
        "a",
        "A",
        "1",
        " ",
        "\n",
        "\t",
        ".",
        "-",
        "=",
        "~",
        "'",
        "é",
        "\u0301",
        "汉",
        "か",
        "😀",
        "\u3000",
        "ा",
    ):
        made += [character * size for size in (2, 3, 4, 5, 6, 7, 9, 13, 16, 31, 70)]
        made += [f"x{character * size}y" for size in (2, 3, 5)]
    made += [_mixed(draw, _ALL, "") for _ in range(250)]
    made += [_mixed(draw, (*_WORDS, *_DIGITS, *_CONTRACTIONS, *_SIGNS, *_SPACES), "") for _ in range(150)]
    made += [_mixed(draw, (*_WORDS, *_CODE, *_SCRIPTS, *_DIGITS), " ") for _ in range(100)]
    made += [_mixed(draw, (*SPECIALS, *_WORDS, " ", "\n"), "") for _ in range(80)]
    made += ["".join(draw.choice("a1 \n.") for _ in range(draw.randrange(4, 30))) for _ in range(60)]
    made += ["".join(map(_character(draw), range(20))) for _ in range(60)]
    return made


def _mixed(draw: random.Random, pieces: tuple[str, ...], between: str) -> str:
    return between.join(draw.choice(pieces) for _ in range(draw.randrange(2, 12)))


def _character(draw: random.Random) -> Callable[[int], str]:
    """Characters of the first two planes, but no halves of surrogates."""

    def one(_: int) -> str:
        place = draw.randrange(0x20, 0x1FFFF)
        return chr(place if not 0xD800 <= place < 0xE000 else place - 0x1000)

    return one
