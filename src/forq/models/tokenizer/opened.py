"""Open the tokenizer of a checkpoint."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forq.checkpoints import Checkpoint
from forq.checkpoints.json_file import read_json
from forq.errors import ConfigError, FormatError
from forq.layers import heap
from forq.models import sentences

_FILES = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
GENERATION = "generation_config.json"
_LIMIT = 1 << 31


class CheckpointTokenizer:
    """A tokenizer of transformers that refuses ids without a row in the model's embedding.

    All other attributes are those of the wrapped tokenizer.

    Attributes:
        own: the wrapped tokenizer, of transformers or built from a GGUF file.
        rows: number of rows of the embedding; None if the configuration does not give it.
        generation_ends: ids that end a text according to the generation settings.
    """

    def __init__(self, own: Any, rows: int | None, generation_ends: tuple[int, ...], where: Path) -> None:
        self.own, self.rows, self.generation_ends, self._where = own, rows, generation_ends, where

    def __call__(self, text: str, **settings: object) -> Mapping[str, list[int]]:
        """Token ids of a text.

        Raises:
            FormatError: an id has no row in the embedding, or the tokenizer's files are damaged.
        """
        try:
            encoding: Mapping[str, list[int]] = self.own(text, **settings)
        except Exception as error:  # a damaged file may load and then raise any error when it is used
            raise FormatError(
                f"{self._where}: the tokenizer cannot encode {text!r:.60}: {type(error).__name__}: {error}; its files "
                "are damaged: copy them again from the original model"
            ) from error
        self._check(encoding["input_ids"])
        return encoding

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        text: str = self.own.decode(token_ids, skip_special_tokens=skip_special_tokens)
        return text

    def convert_tokens_to_ids(self, token: str) -> int:
        """The id of a token.

        Raises:
            FormatError: it has no row in the embedding.
        """
        token_id: int = self.own.convert_tokens_to_ids(token)
        self._check([] if token_id is None else [token_id])
        return token_id

    def __len__(self) -> int:
        return len(self.own)

    def __getattr__(self, name: str) -> Any:
        if name == "own":  # during copying, the attribute does not exist yet
            raise AttributeError(name)
        return getattr(self.own, name)

    def _check(self, ids: Sequence[int]) -> None:
        if self.rows is None or not ids or max(ids) < self.rows:
            return
        beyond = next(token for token in ids if token >= self.rows)
        raise FormatError(
            f"{self._where}: the tokenizer gives {self.own.convert_ids_to_tokens(beyond)!r} the id {beyond}, and the "
            f"model's embedding has {self.rows} rows, 0 … {self.rows - 1}: use the tokenizer the model was published "
            "with"
        )


def open_tokenizer(ckpt: Checkpoint) -> CheckpointTokenizer:
    """The tokenizer beside a checkpoint, or inside it.

    Raises:
        ConfigError: there is no tokenizer, it needs a package that is not installed, or transformers cannot load it.
        FormatError: a file beside it is damaged.
    """
    own = _read(ckpt.folder) if ckpt.contents.tokenizer is None else ckpt.contents.tokenizer()
    heap.trim()  # building a vocabulary of 262,144 tokens leaves 300 MB of freed memory behind
    rows = ckpt.config.get("vocab_size")
    return CheckpointTokenizer(own, rows if type(rows) is int else None, generation_ends(ckpt), ckpt.path)


def generation_ends(ckpt: Checkpoint) -> tuple[int, ...]:
    """Ids that end a text: from generation_config.json, or else from the configuration.

    Raises:
        FormatError: the value is neither an integer nor a list of integers, or an id is too large.
    """
    path = ckpt.folder / GENERATION
    value = read_json(path).get("eos_token_id") if path.is_file() and ckpt.contents.tokenizer is None else None
    value = ckpt.config.get("eos_token_id") if value is None else value
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(type(token) is int and token < _LIMIT for token in ids):
        raise FormatError(f"{path}: expected a token id or a list of them for eos_token_id, found {value!r:.80}")
    # In some configurations −1 means no token.
    return tuple(token for token in ids if token >= 0)


def _read(folder: Path) -> Any:
    """The tokenizer of a folder, as sentence-transformers changes it if the folder is one of its own."""
    own = _loaded(folder)
    if sentences.lowers(folder):
        if getattr(own, "backend_tokenizer", None) is None:
            raise ConfigError(
                f"{folder}: expected a tokenizer.json, to which do_lower_case of sentence-transformers applies, found "
                f"{type(own).__name__} without one"
            )
        sentences.lower(own.backend_tokenizer)
    return own


def _loaded(folder: Path) -> Any:
    from transformers import AutoTokenizer

    # Without these files, transformers builds an empty tokenizer or raises an unrelated error.
    if not any(path for pattern in _FILES for path in folder.glob(pattern)):
        raise ConfigError(
            f"{folder}: expected a tokenizer beside the model, found none of {', '.join(_FILES)}; "
            "copy its files from where the model came from"
        )
    _needs(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a damaged file can raise any error inside transformers
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{folder}: no tokenizer that transformers can load: {reason}") from error


def _needs(folder: Path) -> None:
    """Refuse a tokenizer whose only file needs a package that is not installed.

    Raises:
        ConfigError: the package is missing; the message names it.
    """
    if any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt")):
        return
    readers = {"*.model": "sentencepiece", "*.tiktoken": "tiktoken", "tekken.json": "mistral_common"}
    installs = {
        "sentencepiece": "'forq[sentencepiece]'",
        "tiktoken": "tiktoken",
        "mistral_common": "mistral-common",
    }
    for pattern, package in readers.items():
        for file in folder.glob(pattern):
            if package == "sentencepiece" and _is_tiktoken(file):
                package = "tiktoken"
            if importlib.util.find_spec(package) is None:
                raise ConfigError(
                    f"{folder}: expected a tokenizer.json, found {file.name} alone, which needs the package {package}: "
                    f"pip install {installs[package]}, or copy tokenizer.json from where the model came from"
                )


def _is_tiktoken(file: Path) -> bool:
    """Whether a file is in tiktoken's format, lines of base64 and rank; Llama 3's is called tokenizer.model too."""
    with file.open("rb") as stream:
        return re.match(rb"[A-Za-z0-9+/=]+ \d+\r?\n", stream.readline(200)) is not None


def settings(folder: Path) -> Mapping[str, object]:
    """The contents of tokenizer_config.json; empty if it is missing or unreadable."""
    try:
        values = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
