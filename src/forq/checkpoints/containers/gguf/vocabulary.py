"""The vocabulary of a GGUF file as llama.cpp reads it: tokens, types, and ids with a meaning.

Both the ids and the types stand in the file. What llama.cpp assumes where a key is missing, or names
no token, is assumed here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from forq.checkpoints.containers.gguf.spellings import FILL, NORMAL, respelt
from forq.checkpoints.containers.gguf.splitting import SPLITTINGS
from forq.errors import FormatError

_PREFIX = "tokenizer.ggml."
_MAX_TOKENS = 1 << 24

# Ids that llama.cpp assumes where the file names none, by the kind of vocabulary.
_USUAL: Mapping[str, Mapping[str, int]] = {
    "gpt2": {"bos": 11, "eos": 11},
    "llama": {"bos": 1, "eos": 2, "unknown": 0},
    "gemma4": {},
}
_OLD_KEYS = {"fim_pre": "prefix", "fim_suf": "suffix", "fim_mid": "middle"}
_WITHOUT_BOS = ("glm4", "glm5", "chatglm-bpe")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a file says of its tokens.

    Attributes:
        model: the kind, ``tokenizer.ggml.model``.
        pre: how text is cut into words, ``tokenizer.ggml.pre``; ``default`` where the file does not say.
        ids: of every token, by its spelling.
        types: by id, as llama.cpp sees them.
        bos, eos, unknown, padding: ids; None where there is no such token.
        ends: ids that end a generation, the file's own end first.
        adds_bos, adds_eos: whether a text is put between these tokens.
        notes: what a user should know about this vocabulary, in sentences.
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


def entries(path: Path, values: Mapping[str, Any], name: str, of: type, least: int = 0) -> list[Any]:
    """A list of the header, its entries checked.

    Args:
        name: the key, without ``tokenizer.ggml.``.
        of: the type of every entry.
        least: entries that must be there.

    Raises:
        FormatError: the value is no such list, or is too short.
    """
    found = values.get(_PREFIX + name, [])
    if not isinstance(found, list) or any(type(entry) is not of for entry in found):
        raise FormatError(f"{path}: {_PREFIX}{name}: expected a list of {of.__name__}; convert the file anew")
    if len(found) < least:
        raise FormatError(
            f"{path}: {_PREFIX}{name}: expected {least} entries, found {len(found)}; convert the file anew"
        )
    return found


def flag(path: Path, values: Mapping[str, Any], name: str, usual: bool) -> bool:
    """A truth value of the header; ``usual`` where the file does not say.

    Raises:
        FormatError: it is something else.
    """
    found = values.get(_PREFIX + name, usual)
    if not isinstance(found, bool):
        raise FormatError(f"{path}: {_PREFIX}{name}: expected true or false, found {found!r:.80}")
    return found


def read(path: Path, values: Mapping[str, Any]) -> Vocabulary:
    """Read the vocabulary from a header's values.

    Raises:
        FormatError: it is damaged, of a kind that is not read, or wants a token that it has not.
    """
    model, pre, notes = _kind(path, values)
    tokens = entries(path, values, "tokens", str, 1)
    if len(tokens) > _MAX_TOKENS:
        raise FormatError(f"{path}: {_PREFIX}tokens: expected at most {_MAX_TOKENS} entries, found {len(tokens)}")
    ids = _ids(path, tokens)
    has_types = f"{_PREFIX}token_type" in values
    types = entries(path, values, "token_type", int, len(ids))[: len(ids)] if has_types else [NORMAL] * len(ids)
    usual = dict(_USUAL[model])
    if pre in _WITHOUT_BOS:
        del usual["bos"]
    special = {}
    for name in ("bos", "eos", "unknown", "padding", "eot", "eom", *FILL):
        special[name], said = _special(path, values, name, usual.get(name), len(ids))
        notes += said
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


def configured(path: Path, values: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The ids a config.json names, each below ``rows``; None where there is none.

    A vocabulary that cannot be read has no ids. It is refused when a tokenizer is made of it.
    """
    try:
        vocabulary = read(path, values)
    except FormatError:
        return {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    ends = [token for token in vocabulary.ends if token < rows]
    single = {"bos_token_id": vocabulary.bos, "pad_token_id": vocabulary.padding}
    held = {name: token if token is not None and token < rows else None for name, token in single.items()}
    return held | {"eos_token_id": ends if len(ends) > 1 else next(iter(ends), None)}


def _kind(path: Path, values: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """The kind of vocabulary, how its text is cut into words, and what to say of it."""
    model = values.get(f"{_PREFIX}model")
    if not isinstance(model, str) or model not in _USUAL:
        kinds = ", ".join(_USUAL)
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
                "convert the file anew"
            )
    return ids


def _special(
    path: Path, values: Mapping[str, Any], name: str, usual: int | None, size: int
) -> tuple[int | None, tuple[str, ...]]:
    """The id under a key, or the usual one; and what to say where the file's is none of its own tokens."""
    token = usual if usual is not None and usual < size else None
    notes: tuple[str, ...] = ()
    for stem in (name, *((_OLD_KEYS[name],) if name in _OLD_KEYS else ())):
        key = f"{_PREFIX}{stem}_token_id"
        found = values.get(key)
        if found is None:
            continue
        if type(found) is not int:
            raise FormatError(f"{path}: {key}: expected the id of a token, found {found!r:.80}")
        if 0 <= found < size:
            token = found
        else:
            taken = "no token" if token is None else f"token {token}, as llama.cpp does,"
            notes += (f"{key} is {found}, beyond the {size} tokens of the vocabulary; {taken} stands for it",)
    return token, notes
