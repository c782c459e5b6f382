"""What a folder of sentence-transformers does with the token vectors of its encoder, and what of it is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from forq.checkpoints import Checkpoint
from forq.checkpoints.json_file import read_json
from forq.errors import FormatError
from forq.models import sentences
from forq.models.families import kind_of
from forq.tokens.model import Pooling

_FLAGS: Mapping[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Fields of earlier versions, in the order in which the vectors stand one behind the other."""

_FOLLOWED = ("Transformer", "Pooling", "Normalize")


def pooling(ckpt: Checkpoint) -> tuple[Pooling, ...]:
    """The ways in which a sentence's vector is made; the mean where nothing says so."""
    ways = _named(ckpt.folder)
    return cast("tuple[Pooling, ...]", ways) if set(ways) <= set(get_args(Pooling)) else ("mean",)


def left_out(ckpt: Checkpoint) -> tuple[str, ...]:
    """Sentences on what sentence-transformers does with a text and forq does not."""
    found = []
    if of_decoder(ckpt):
        found.append(
            "modules.json makes sentence vectors of this decoder; forq computes a language model with the embedding or "
            "the stored head, and no sentence vectors"
        )
    if before := sentences.prompt(ckpt.folder):
        found.append(
            f"sentence-transformers writes {before!r:.80} before every text (default_prompt_name); forq does not, and "
            "answers otherwise: write it at the beginning of your texts"
        )
    found.extend(sentences.left_out(ckpt.folder, vectors=kind_of(ckpt.contents) == "encoder"))
    if unknown := [way for way in _named(ckpt.folder) if way not in get_args(Pooling)]:
        found.append(
            f"sentence-transformers makes a sentence's vector by {' and '.join(unknown)}; forq takes the mean of the "
            "tokens, and answers otherwise"
        )
    if further := [kind for kind, _ in modules(ckpt.folder) if kind not in _FOLLOWED]:
        found.append(f"forq leaves out {' and '.join(further)} of modules.json, and answers otherwise")
    return tuple(found)


def of_decoder(ckpt: Checkpoint) -> bool:
    """Whether sentence-transformers makes sentence vectors of a decoder, as of Qwen3-Embedding."""
    pools = any(kind == "Pooling" for kind, _ in modules(ckpt.folder))
    return pools and kind_of(ckpt.contents) == "causal"


def _named(folder: Path) -> tuple[str, ...]:
    places = [place for kind, place in modules(folder) if kind == "Pooling"] or ["1_Pooling"]
    file = folder / places[0] / "config.json"
    told: Mapping[str, Any] = read_json(file) if file.is_file() else {}
    if (way := told.get("pooling_mode")) is not None:
        return (str(way),) if not isinstance(way, list) else tuple(map(str, way))
    return tuple(way for flag, way in _FLAGS.items() if told.get(flag) is True) or ("mean",)


def modules(folder: Path) -> list[tuple[str, str]]:
    """The class and the folder of every module of sentence-transformers, in order; none where nothing names them.

    Raises:
        FormatError: modules.json is not what sentence-transformers writes.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return []
    try:
        return [(module["type"].rpartition(".")[2], module["path"]) for module in json.loads(file.read_bytes())]
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"{file}: expected a list of modules, each with type and path, found {error}") from error
