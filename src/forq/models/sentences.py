"""What a folder of sentence-transformers says of the texts that its encoder reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forq.checkpoints.json_file import read_json

_MOST = 1 << 20
"""Lengths from here on mean no limit: tokenizers without one are saved with 1e30."""


def longest(folder: Path) -> int | None:
    """The number of tokens to which the owner cuts a text; None where nothing names one.

    It is ``max_seq_length``, and where that is missing ``model_max_length`` of the tokenizer, as recent versions save
    it. Other programs cut at the tokenizer's only if they are asked to, so it counts in such a folder alone.
    """
    own = _settings(folder)
    limit = None if own is None else own.get("max_seq_length")
    if limit is None and (own is not None or (folder / "modules.json").is_file()):
        limit = _read(folder / "tokenizer_config.json").get("model_max_length")
    return int(limit) if isinstance(limit, int | float) and 0 < limit < _MOST else None


def lowers(folder: Path) -> bool:
    """Whether the owner turns texts into lower case before the tokenizer's own normalisation."""
    return bool((_settings(folder) or {}).get("do_lower_case"))


def lower(backend: Any) -> None:
    """Let a tokenizer of ``tokenizers`` turn texts into lower case first, unless a step of its own does."""
    from tokenizers import normalizers

    own = backend.normalizer
    steps = [] if own is None else [own]
    if isinstance(own, normalizers.Sequence):
        steps = [own[place] for place in range(len(own))]
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])


def prompt(folder: Path) -> str:
    """What the owner writes before every text unless it is told otherwise; usually nothing."""
    told = _read(folder / "config_sentence_transformers.json")
    prompts, name = told.get("prompts"), told.get("default_prompt_name")
    found = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    return found if isinstance(found, str) else ""


def _settings(folder: Path) -> Mapping[str, Any] | None:
    """sentence_bert_config.json, which old versions named after other families too; None where there is none."""
    file = next(iter(sorted(folder.glob("sentence_*_config.json"))), None)
    return None if file is None else _read(file)


def _read(file: Path) -> Mapping[str, Any]:
    return read_json(file) if file.is_file() else {}
