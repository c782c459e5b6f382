"""The tokenizer of a checkpoint, opened in one place, with what the checkpoint's other files say of tokens."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forq.core import ConfigError, FormatError
from forq.formats.checkpoint import Checkpoint
from forq.formats.checkpoint.folder import read_json

_FILES = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
GENERATION = "generation_config.json"


class CheckpointTokenizer:
    """A tokenizer of transformers that gives no token without a row in the model's embedding.

    Everything else is the tokenizer's own.

    Attributes:
        own: the tokenizer of transformers, or what a GGUF file's vocabulary made.
        rows: of the embedding; None where the checkpoint does not say.
        generation_ends: ids that end a text by the checkpoint's generation settings.
    """

    def __init__(self, own: Any, rows: int | None, generation_ends: tuple[int, ...], where: Path) -> None:
        self.own, self.rows, self.generation_ends, self._where = own, rows, generation_ends, where

    def __call__(self, text: str, **settings: Any) -> Mapping[str, Any]:
        """Token ids of a text.

        Raises:
            FormatError: one of them has no row in the embedding.
        """
        found: Mapping[str, Any] = self.own(text, **settings)
        self._check(found["input_ids"])
        return found

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        text: str = self.own.decode(token_ids, skip_special_tokens=skip_special_tokens)
        return text

    def convert_tokens_to_ids(self, token: str) -> int:
        """The id of a token.

        Raises:
            FormatError: it has no row in the embedding.
        """
        found: int = self.own.convert_tokens_to_ids(token)
        self._check([] if found is None else [found])
        return found

    def __len__(self) -> int:
        return len(self.own)

    def __getattr__(self, name: str) -> Any:
        if name == "own":  # while a copy is being made there is none yet
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
    """The tokenizer that lies beside a checkpoint, or in it.

    Raises:
        ConfigError: there is none, it needs a package that is not here, or transformers cannot load it.
        FormatError: a file beside it is damaged.
    """
    own = _loaded(ckpt.folder) if ckpt.contents.tokenizer is None else ckpt.contents.tokenizer()
    rows = ckpt.config.get("vocab_size")
    return CheckpointTokenizer(own, rows if type(rows) is int else None, generation_ends(ckpt), ckpt.path)


def generation_ends(ckpt: Checkpoint) -> tuple[int, ...]:
    """Ids that end a text by generation_config.json, or by the configuration where that says none.

    Raises:
        FormatError: they are neither a whole number nor a list of them.
    """
    path = ckpt.folder / GENERATION
    said = read_json(path).get("eos_token_id") if path.is_file() and ckpt.contents.tokenizer is None else None
    said = ckpt.config.get("eos_token_id") if said is None else said
    found = [] if said is None else said if isinstance(said, list) else [said]
    if not all(type(token) is int for token in found):
        raise FormatError(f"{path}: expected a token id or a list of them for eos_token_id, found {said!r:.80}")
    return tuple(found)


def _loaded(folder: Path) -> Any:
    from transformers import AutoTokenizer

    # Without these transformers makes an empty tokenizer, or fails in words about something else.
    if not any(path for pattern in _FILES for path in folder.glob(pattern)):
        raise ConfigError(
            f"{folder}: expected a tokenizer beside the model, found none of {', '.join(_FILES)}; "
            "copy its files from where the model came from"
        )
    _needs(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever a damaged file ends in, somewhere inside transformers
        said = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{folder}: no tokenizer that transformers can load: {said}") from error


def _needs(folder: Path) -> None:
    """Refuse a tokenizer whose only file is read by a package that is not here.

    Raises:
        ConfigError: with the package's name.
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
    """Whether a file is a list of tokens in base64 with their ranks; Llama 3's first one is called tokenizer.model."""
    with file.open("rb") as stream:
        return re.match(rb"[A-Za-z0-9+/=]+ \d+\r?\n", stream.readline(200)) is not None


def settings(folder: Path) -> Mapping[str, Any]:
    """What tokenizer_config.json says; nothing where it is not there or not readable."""
    try:
        found = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
