"""A tokenizer of transformers as the values of a GGUF file, compared with it on texts before anything is written.

llama.cpp knows two kinds that are made here: byte-level BPE (``gpt2``), with the name of a way of splitting texts into
words, and SentencePiece BPE (``llama``), with scores. The way of splitting is found by trying: the first that splits
every trial text as the tokenizer does. The values are then read as forq reads a GGUF file, which gives llama.cpp's ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forq.checkpoints.containers.gguf import tokenizer as reader
from forq.checkpoints.containers.gguf.pretokenizer import SPLITTINGS, Splitting, expression
from forq.checkpoints.containers.gguf.spellings import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from forq.checkpoints.containers.gguf.write import Value
from forq.errors import FormatError

_TRIALS = (
    "Hello, world! It's 12 o'clock; we'll see 3.14159, 1,000,000 and 2026-11-29.",
    "DON'T they're I'VE he'd WE'LL 'twas l'été can’t",
    "def f(x):\n    return x + 1\n\n\n\tif x==1:\r\n  pass\n",
    "  two  spaces   and    four, a tab\tand a line\n \n end  ",
    "naïve Größe Привет, мир. Καλημέρα 漢字かな交じり文，标点。 한국어 नमस्ते مرحبا",
    "camelCaseWord HTTPServerError snake_case_name XMLParser kebab-case",
    "12345678 abc123def4567 v1.2.3 0xFF ²³ ½ ١٢٣",
    "$5 €5 a+=b*c; <div>&amp;</div> \\n ... … -- — !? ?! ~/home `code` #tag @me | || [x] {y}",
    "😀 👍🏽 👨‍👩‍👧 ❤️ → ∞ ♥ ─│┌",
    "http://a.b/c?d=e&f=%20g C:\\dir\\file.txt {\"k\": [1, 2.5, null]}",
    " leading", "trailing ", "a", "\n", "   ", "é", "1", "…",
)  # fmt: skip
_PREFIX = "tokenizer.ggml."


def values(own: Any, rows: int, ends: tuple[int, ...]) -> tuple[dict[str, Value], tuple[str, ...]]:
    """The tokenizer's values of the header, and sentences for the user about texts that llama.cpp reads otherwise.

    Args:
        own: a fast tokenizer of transformers.
        rows: rows of the embedding; a file has as many tokens.
        ends: ids that end a text by the generation settings.

    Raises:
        FormatError: llama.cpp has no tokenizer of this kind, or none that gives these ids.
    """
    description = _description(own)
    model = description["model"]
    notes = tuple(_normalised(description))
    tokens, types = _tokens(own, description, rows)
    merges = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
    found: dict[str, Value] = {"tokens": tokens, "token_type": types, **_ids(own, ends), **_frame(own)}
    if _spells_bytes(description):
        candidates: list[dict[str, Value]] = [{"model": "gpt2", "pre": name} for name in _splittings(own, model)]
        found["merges"] = [" ".join(pair) for pair in merges]
    elif model.get("byte_fallback"):
        candidates = [{"model": "llama", "add_space_prefix": prefix} for prefix in (True, False)]
        found["scores"] = _scores(tokens, merges)
    else:
        raise FormatError("--to gguf: expected a byte-level or a SentencePiece BPE tokenizer, found another BPE")
    templates = _templates(own)
    differing = None
    for candidate in candidates:
        made = {_PREFIX + key: value for key, value in {**candidate, **found}.items()} | templates
        if (differing := _differing(own, made)) is None:
            return made, (*notes, *_absorbed(own, made))
    what = "splits texts" if differing is None else f"reads {_begun(differing)}"
    raise FormatError(
        f"--to gguf: expected a tokenizer that llama.cpp can follow, found one that {what} otherwise; export to "
        "float16, and convert the folder with llama.cpp"
    )


def _begun(text: str) -> str:
    return repr(text) if len(text) <= 40 else f"{text[:40]!r} …"


def _description(own: Any) -> dict[str, Any]:
    backend = getattr(own, "backend_tokenizer", None)
    if backend is None:
        raise FormatError(f"--to gguf: expected a tokenizer with a tokenizer.json, found {type(own).__name__}")
    description: dict[str, Any] = json.loads(backend.to_str())
    if (kind := description["model"]["type"]) != "BPE":
        raise FormatError(f"--to gguf: expected a BPE tokenizer, found {kind}; export to float16")
    return description


def _normalised(description: Mapping[str, Any]) -> Iterator[str]:
    """A note where texts are normalised in a way that llama.cpp does not know."""
    text = json.dumps(description["normalizer"])
    for form in ("NFC", "NFKC", "NFD", "NFKD", "Lowercase", "StripAccents"):
        if f'"{form}"' in text:
            yield f"the tokenizer normalises texts ({form}), and llama.cpp does not: give it texts in that form"


def _tokens(own: Any, description: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Spellings and types by id; ids without a token are unused."""
    model = description["model"]
    by_id = {token: text for text, token in model["vocab"].items()}
    types = dict.fromkeys(by_id, NORMAL)
    if model.get("byte_fallback"):
        bytes_ = {f"<0x{byte:02X}>" for byte in range(256)}
        types |= {token: BYTE for token, text in by_id.items() if text in bytes_}
    for added in description["added_tokens"]:
        by_id[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if not _spells_bytes(description) and own.unk_token_id is not None:
        types[own.unk_token_id] = UNKNOWN
    if max(by_id) >= rows:
        raise FormatError(
            f"--to gguf: expected tokens with a row in the embedding, found the token {max(by_id)} "
            f"({by_id[max(by_id)]!r:.40}) and {rows} rows"
        )
    tokens = [by_id.get(token, f"[PAD{token}]") for token in range(rows)]
    return tokens, [types.get(token, UNUSED) for token in range(rows)]


def _spells_bytes(description: Mapping[str, Any]) -> bool:
    """Whether tokens spell bytes with GPT-2's letters."""
    return '"ByteLevel"' in json.dumps(description["pre_tokenizer"])


def _scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """The earlier a pair merges, the better the score of its token; tokens that no pair makes are worst."""
    best: dict[str, int] = {}
    for place, (first, second) in enumerate(merges):
        best.setdefault(first + second, place)
    return [float(-best.get(token, len(merges))) for token in tokens]


def _ids(own: Any, ends: tuple[int, ...]) -> dict[str, Value]:
    named = {"bos": own.bos_token_id, "eos": own.eos_token_id, "unknown": own.unk_token_id, "padding": own.pad_token_id}
    if named["eos"] is None and ends:
        named["eos"] = ends[0]
    others = [token for token in ends if token != named["eos"]]
    named |= dict(zip(("eot", "eom"), others, strict=False))
    return {f"{name}_token_id": int(token) for name, token in named.items() if token is not None}


def _frame(own: Any) -> dict[str, Value]:
    """Whether BOS and EOS are written around a text.

    Raises:
        FormatError: something else is.
    """
    inside, whole = own("a", add_special_tokens=False)["input_ids"], own("a")["input_ids"]
    bos, eos = own.bos_token_id, own.eos_token_id
    for front in ([], [bos]):
        for back in ([], [eos]):
            if whole == [*front, *inside, *back]:
                return {"add_bos_token": bool(front), "add_eos_token": bool(back)}
    raise FormatError(f"--to gguf: expected BOS and EOS around a text at most, found {whole} around {inside}")


def _splittings(own: Any, model: Mapping[str, Any]) -> list[str]:
    """Names of the ways of splitting that agree with the tokenizer's on all trial texts, one name a way."""
    wanted = [[piece for piece, _ in own.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)] for text in _TRIALS]
    first: dict[Splitting, str] = {}
    for name, splitting in SPLITTINGS.items():
        first.setdefault(splitting, name)
    fitting = (
        name
        for splitting, name in first.items()
        if splitting.spells_bytes and splitting.whole_words == bool(model.get("ignore_merges"))
    )
    return [name for name in fitting if _pieces(SPLITTINGS[name]) == wanted]


def _pieces(splitting: Splitting) -> list[list[str]]:
    from tokenizers import Regex, pre_tokenizers

    steps: list[Any] = [pre_tokenizers.Split(Regex(expression(one)), "isolated") for one in splitting.patterns]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    made = pre_tokenizers.Sequence(steps)
    return [[piece for piece, _ in made.pre_tokenize_str(text)] for text in _TRIALS]


def _templates(own: Any) -> dict[str, Value]:
    template, key = getattr(own, "chat_template", None), "tokenizer.chat_template"
    if isinstance(template, str):
        return {key: template}
    if not isinstance(template, dict):
        return {}
    others = {f"{key}.{name}": text for name, text in template.items() if name != "default"}
    return {**({key: template["default"]} if "default" in template else {}), **others, f"{key}s": list(template)}


def _differing(own: Any, made: Mapping[str, Value]) -> str | None:
    """A trial text with other ids; None if there is none."""
    other = reader.tokenizer(Path("model.gguf"), made)
    return next((text for text in _TRIALS if other(text)["input_ids"] != own(text)["input_ids"]), None)


def _absorbed(own: Any, made: Mapping[str, Value]) -> Iterator[str]:
    """A note on special tokens around which llama.cpp reads spaces otherwise."""
    other = reader.tokenizer(Path("model.gguf"), made)
    special = [added.content for added in own.added_tokens_decoder.values()][:64]
    texts = {text: f"a {text} b" for text in special}
    odd = [text for text, around in texts.items() if other(around)["input_ids"] != own(around)["input_ids"]]
    if odd:
        yield f"llama.cpp reads the spaces around {', '.join(map(repr, odd[:4]))} otherwise"
