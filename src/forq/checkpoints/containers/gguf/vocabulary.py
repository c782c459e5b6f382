"""The vocabulary of a GGUF file, as llama.cpp reads it: tokens, token types and special ids.

If a key is missing or names no token, the defaults of llama.cpp apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from forq.checkpoints.containers.gguf.pretokenizer import SPLITTINGS
from forq.checkpoints.containers.gguf.spellings import FILL, NORMAL, respelt
from forq.errors import FormatError

_PREFIX = "tokenizer.ggml."
_MAX_TOKENS = 1 << 24

# llama.cpp's default ids, by the kind of vocabulary.
_DEFAULT_IDS: Mapping[str, Mapping[str, int]] = {
    "gpt2": {"bos": 11, "eos": 11},
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "gemma4": {},
}
_OLD_KEYS = {"fim_pre": "prefix", "fim_suf": "suffix", "fim_mid": "middle"}
_WITHOUT_BOS = ("glm4", "glm5", "chatglm-bpe")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens and special ids of a file.

    Attributes:
        model: kind of the vocabulary, ``tokenizer.ggml.model``.
        pre: pre-tokenizer, ``tokenizer.ggml.pre``; ``default`` if the key is missing.
        ids: ids of all tokens, by spelling.
        types: token types by id, as corrected by llama.cpp.
        bos, eos, unknown, padding: special ids; None if there is no such token.
        ends: ids that end a generation, the file's EOS first.
        adds_bos, adds_eos: whether BOS and EOS are added to a text.
        notes: sentences for the user about this vocabulary.
    """

    model: Literal["gpt2", "llama"]
    pre: str
    ids: Mapping[str, int]
    types: tuple[int, ...]
    bos: int | None
    eos: int | None
    unknown: int | None
    padding: int | None
    ends: tuple[int, ...]
    adds_bos: bool
    adds_eos: bool
    notes: tuple[str, ...]


def entries(path: Path, values: Mapping[str, object], name: str, of: type, least: int = 0) -> list[Any]:
    """Read a list from the header and check its entries.

    Args:
        name: the key, without ``tokenizer.ggml.``.
        of: the type of every entry.
        least: the least number of entries.

    Raises:
        FormatError: the value is no such list, or is too short.
    """
    items = values.get(_PREFIX + name, [])
    if not isinstance(items, list) or any(type(item) is not of for item in items):
        raise FormatError(f"{path}: {_PREFIX}{name}: expected a list of {of.__name__}; convert the file again")
    if len(items) < least:
        raise FormatError(
            f"{path}: {_PREFIX}{name}: expected {least} entries, found {len(items)}; convert the file again"
        )
    return items


def flag(path: Path, values: Mapping[str, object], name: str, default: bool) -> bool:
    """Read a boolean from the header; ``default`` if the key is missing.

    Raises:
        FormatError: the value is no boolean.
    """
    value = values.get(_PREFIX + name, default)
    if not isinstance(value, bool):
        raise FormatError(f"{path}: {_PREFIX}{name}: expected true or false, found {value!r:.80}")
    return value


def read(path: Path, values: Mapping[str, object]) -> Vocabulary:
    """Read the vocabulary from a header's values.

    Raises:
        FormatError: the vocabulary is damaged, of an unsupported kind, or lacks a token it requires.
    """
    model, pre, notes = _kind(path, values)
    tokens = entries(path, values, "tokens", str, 1)
    if len(tokens) > _MAX_TOKENS:
        raise FormatError(f"{path}: {_PREFIX}tokens: expected at most {_MAX_TOKENS} entries, found {len(tokens)}")
    ids = _ids(path, tokens)
    has_types = f"{_PREFIX}token_type" in values
    types = entries(path, values, "token_type", int, len(ids))[: len(ids)] if has_types else [NORMAL] * len(ids)
    defaults = dict(_DEFAULT_IDS[model])
    if pre in _WITHOUT_BOS:
        del defaults["bos"]
    special = {}
    for name in ("bos", "eos", "unknown", "padding", "eot", "eom", *FILL):
        special[name], more = _special(path, values, name, defaults.get(name), len(ids))
        notes += more
    splitting = SPLITTINGS[pre]
    spm = model == "llama"
    adds_bos = flag(path, values, "add_bos_token", spm or splitting.adds_bos)
    if not splitting.spells_bytes and splitting.adds_bos and not adds_bos:
        adds_bos, notes = True, (*notes, f"llama.cpp begins every text with BOS for pre-tokenizer {pre}")
    adds_eos = flag(path, values, "add_eos_token", False)
    for name, adds in (("bos", adds_bos), ("eos", adds_eos)):
        if adds and special[name] is None:
            raise FormatError(f"{path}: {_PREFIX}{name}_token_id: expected an id, since add_{name}_token is true")
    ends = respelt(ids, types, special)
    first = special["eos"]
    return Vocabulary(
        model="llama" if spm else "gpt2",
        pre=pre,
        ids=ids,
        types=tuple(types),
        bos=special["bos"],
        eos=first,
        unknown=special["unknown"],
        padding=special["padding"],
        ends=tuple(sorted(ends, key=lambda token: (token != first, token))),
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        notes=notes,
    )


def configured(path: Path, values: Mapping[str, object], rows: int) -> dict[str, object]:
    """The token ids of config.json, each below ``rows``; None for an absent token.

    An unreadable vocabulary gives no ids here. It is refused later, when a tokenizer is built from it.
    """
    try:
        vocabulary = read(path, values)
    except FormatError:
        return {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    ends = [token for token in vocabulary.ends if token < rows]
    single = {"bos_token_id": vocabulary.bos, "pad_token_id": vocabulary.padding}
    below = {name: token if token is not None and token < rows else None for name, token in single.items()}
    return below | {"eos_token_id": ends if len(ends) > 1 else next(iter(ends), None)}


def _kind(path: Path, values: Mapping[str, object]) -> tuple[str, str, tuple[str, ...]]:
    """The kind of the vocabulary, its pre-tokenizer, and notes for the user."""
    model = values.get(f"{_PREFIX}model")
    if not isinstance(model, str) or model not in _DEFAULT_IDS:
        kinds = ", ".join(_DEFAULT_IDS)
        raise FormatError(f"{path}: {_PREFIX}model: expected a vocabulary of kind {kinds}, found {model!r:.80}")
    if model == "llama":
        return model, "default", ()
    pre = "gemma4" if model == "gemma4" else values.get(f"{_PREFIX}pre", "")
    if pre == "":
        note = (
            f"the file has no {_PREFIX}pre; llama.cpp cuts its text into words by the kind 'default', and so does forq"
        )
        return model, "default", (note,)
    if pre not in SPLITTINGS:
        raise FormatError(
            f"{path}: {_PREFIX}pre: expected a pre-tokenizer that forq knows, found {pre!r:.80}; llama.cpp refuses "
            "values it does not know, too: use a newer forq, or convert the file with llama.cpp"
        )
    return model, str(pre), ()


def _ids(path: Path, tokens: Iterable[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for token, text in enumerate(tokens):
        spelling = text or f"[EMPTY_{token}]"
        if (first := ids.setdefault(spelling, token)) != token:
            raise FormatError(
                f"{path}: {_PREFIX}tokens: expected every token once, found {spelling!r:.80} at {first} and {token}; "
                "convert the file again"
            )
    return ids


def _special(
    path: Path, values: Mapping[str, object], name: str, default: int | None, size: int
) -> tuple[int | None, tuple[str, ...]]:
    """The id under a key, or the default; and a note if the file's id is none of its tokens."""
    token = default if default is not None and default < size else None
    notes: tuple[str, ...] = ()
    for stem in (name, *((_OLD_KEYS[name],) if name in _OLD_KEYS else ())):
        key = f"{_PREFIX}{stem}_token_id"
        value = values.get(key)
        if value is None:
            continue
        if type(value) is not int:
            raise FormatError(f"{path}: {key}: expected the id of a token, found {value!r:.80}")
        if 0 <= value < size:
            token = value
        else:
            taken = "no token" if token is None else f"token {token}, as llama.cpp does,"
            notes += (f"{key} is {value}, beyond the {size} tokens of the vocabulary; {taken} stands for it",)
    return token, notes
