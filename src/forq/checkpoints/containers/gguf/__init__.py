"""A GGUF file as a checkpoint: its tensors under transformers' names, its tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from forq.checkpoints.containers.gguf import header as _gguf_header
from forq.checkpoints.containers.gguf import model as _gguf_model
from forq.checkpoints.containers.gguf import rope as _gguf_rope
from forq.checkpoints.containers.gguf import sd3 as _gguf_sd3
from forq.checkpoints.containers.gguf import tokenizer as _gguf_tokenizer
from forq.checkpoints.containers.gguf.keys import Keys
from forq.checkpoints.containers.gguf.tensors import Part, read
from forq.checkpoints.contents import Contents
from forq.errors import FormatError


def contents(path: Path) -> Contents:
    """What a file holds. The configuration names the type of every tensor that is blocks, by transformers' name.

    Raises:
        FormatError: the file is damaged, of a kind of model that is not read, or has tensors of another type.
    """
    header = _gguf_header.read(path)
    if _gguf_sd3.is_transformer(header):
        raise FormatError(
            f"{path}: expected a model that stands for itself, found the transformer of a Stable Diffusion 3 pipeline: "
            "put it in PIPELINE/transformer/ in place of the safetensors there, and name PIPELINE"
        )
    config = _gguf_model.config(path, header.values, {one.name: one.shape for one in header.tensors})

    def parts(one: _gguf_header.Placed) -> list[Part]:
        name = _gguf_model.place(one.name)
        return [Part(name, one.shape, order=_gguf_model.order(path, name, one.shape, config))]

    info, types = read(path, header, parts)
    config["quantization_config"] = {"quant_method": "gguf", "types": types}
    return Contents(
        config,
        info,
        files=(path.name,),
        tokenizer=partial(_tokenizer, path),
        values=_values(path, header.values, info),
    )


def _values(path: Path, values: Mapping[str, Any], info: Collection[str]) -> dict[str, Any]:
    """What no config.json can say: changes of the rotary positions, and the keys forq does not know."""
    keys = Keys(path, values["general.architecture"], values)
    found: dict[str, Any] = {"unknown_keys": keys.unknown()}
    if _gguf_rope.FACTORS in info:
        found["rope_factors"] = _gguf_rope.FACTORS
    if (magnitude := _gguf_rope.magnitude(keys)) != 1.0:
        found["rope_magnitude"] = magnitude
    return found


def _tokenizer(path: Path) -> Any:
    return _gguf_tokenizer.tokenizer(path, _gguf_header.read(path).values)
