"""A GGUF file as a checkpoint: tensors with transformers' names, and the file's own tokenizer."""

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
    """Read the contents of a GGUF file. The configuration lists the type of every quantized tensor.

    Raises:
        FormatError: the file is damaged, or its architecture or one of its tensor types is not supported.
    """
    header = _gguf_header.read(path)
    if _gguf_sd3.is_transformer(header):
        raise FormatError(
            f"{path}: expected a complete model, found the transformer of a Stable Diffusion 3 pipeline: "
            "put it in PIPELINE/transformer/ instead of the safetensors there, and name PIPELINE"
        )
    config = _gguf_model.config(path, header.values, {tensor.name: tensor.shape for tensor in header.tensors})

    def parts(tensor: _gguf_header.Placed) -> list[Part]:
        name = _gguf_model.place(tensor.name)
        return [Part(name, tensor.shape, order=_gguf_model.order(path, name, tensor.shape, config))]

    info, types = read(path, header, parts)
    config["quantization_config"] = {"quant_method": "gguf", "types": types}
    return Contents(
        config,
        info,
        files=(path.name,),
        tokenizer=partial(tokenizer_of, path),
        values=_values(path, header.values, info),
    )


def _values(path: Path, values: Mapping[str, Any], info: Collection[str]) -> dict[str, Any]:
    """Values without a place in config.json: rotary factors and magnitude, and keys forq does not know."""
    keys = Keys(path, values["general.architecture"], values)
    extra: dict[str, Any] = {"unknown_keys": keys.unknown()}
    if _gguf_rope.FACTORS in info:
        extra["rope_factors"] = _gguf_rope.FACTORS
    if (magnitude := _gguf_rope.magnitude(keys)) != 1.0:
        extra["rope_magnitude"] = magnitude
    return extra


def tokenizer_of(path: Path) -> Any:
    return _gguf_tokenizer.tokenizer(path, _gguf_header.read(path).values)
