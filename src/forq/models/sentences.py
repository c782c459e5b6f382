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

    It is ``model_max_length`` among the settings for the tokenizer if it stands there, else ``max_seq_length``. Where
    both are missing it is ``model_max_length`` of the tokenizer itself, as recent versions save it. Other programs cut
    at the tokenizer's only if they are asked to, so it counts in such a folder alone.
    """
    own = _settings(folder)
    limit = None if own is None else _processor(own).get("model_max_length", own.get("max_seq_length"))
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


def left_out(folder: Path, *, vectors: bool) -> tuple[str, ...]:
    """Sentences on settings by which the owner reads texts, makes vectors or compares them otherwise.

    Args:
        vectors: the model is an encoder without a head, of which only vectors are of use.
    """
    own, found = _settings(folder) or {}, list[str]()
    unread = {name: value for name, value in _processor(own).items() if name not in _KNOWN}
    further = {
        "the tokenizer's settings": unread,
        "the configuration's settings": _under(own, "config_kwargs", "config_args"),
        "processing_kwargs": {key: told for key, told in _under(own, "processing_kwargs").items() if told},
    }
    for name, value in further.items():
        if value:
            found.append(
                f"sentence-transformers follows {name} {value!r:.80} in sentence_bert_config.json; forq does not"
            )
    if vectors and (output := _output(own)) not in (None, "last_hidden_state"):
        found.append(f"sentence-transformers takes {output!r:.80} of the encoder, and forq the last hidden state")
    way = _read(folder / "config_sentence_transformers.json").get("similarity_fn_name")
    if vectors and way not in (None, "cosine"):
        found.append(f"sentence-transformers compares vectors by {way!r:.40} (similarity_fn_name), and forq by cosine")
    return tuple(f"{sentence}: it answers otherwise" for sentence in found)


_KNOWN = ("model_max_length", "trust_remote_code", "use_fast", "revision", "token", "cache_dir", "local_files_only")
"""Settings for the tokenizer that are followed, or change no token."""


def _output(own: Mapping[str, Any]) -> object:
    """The name of the encoder's output from which vectors are made; None where nothing names one."""
    told = own.get("modality_config")
    text = told.get("text") if isinstance(told, dict) else None
    return text.get("method_output_name") if isinstance(text, dict) else None


def _processor(own: Mapping[str, Any]) -> Mapping[str, Any]:
    return _under(own, "processor_kwargs", "tokenizer_args")


def _under(own: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The settings under the first of several names; older versions used the last."""
    found: object = next((own[name] for name in names if name in own), {})
    return found if isinstance(found, dict) else {}


def _settings(folder: Path) -> Mapping[str, Any] | None:
    """sentence_bert_config.json, which old versions named after other families too; None where there is none."""
    file = next(iter(sorted(folder.glob("sentence_*_config.json"))), None)
    return None if file is None else _read(file)


def _read(file: Path) -> Mapping[str, Any]:
    return read_json(file) if file.is_file() else {}
