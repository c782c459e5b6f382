"""A GGUF file as a checkpoint: tensors with transformers' names, and the file's own tokenizer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from forq.checkpoints.containers.gguf import header as _gguf_header
from forq.checkpoints.containers.gguf import rope as _gguf_rope
from forq.checkpoints.containers.gguf import sd3 as _gguf_sd3
from forq.checkpoints.containers.gguf import shards as _gguf_shards
from forq.checkpoints.containers.gguf import tokenizer as _gguf_tokenizer
from forq.checkpoints.containers.gguf.model import Model
from forq.checkpoints.containers.gguf.tensors import read
from forq.checkpoints.contents import Contents
from forq.checkpoints.tensor import TensorInfo
from forq.errors import FormatError


def contents(path: Path) -> Contents:
    """Read the contents of a GGUF file. The configuration lists the type of every quantized tensor.

    Args:
        path: the file; of a model in several files, the first.

    Raises:
        FormatError: the file is damaged, a further file is missing, or the architecture or one of the
            tensor types is not supported.
    """
    first = _gguf_header.read(path)
    if _gguf_sd3.is_transformer(first):
        raise FormatError(
            f"{path}: expected a complete model, found the transformer of a Stable Diffusion 3 pipeline: "
            "put it in PIPELINE/transformer/ instead of the safetensors there, and name PIPELINE"
        )
    files = _gguf_shards.files(path, first)
    model = Model(path, first.values, _gguf_shards.shapes(files))
    config = model.config()
    info: dict[str, TensorInfo] = {}
    types: dict[str, str] = {}
    for file, header in files.items():
        here, kinds = read(file, header, model.parts)
        if twice := info.keys() & here.keys():
            raise FormatError(f"{file}: expected tensors that no other part has, found {min(twice)} again")
        info |= here
        types |= kinds
    config["quantization_config"] = {"quant_method": "gguf", "types": dict(sorted(types.items()))}
    info = dict(sorted(info.items()))
    return Contents(
        config,
        info,
        files=tuple(file.name for file in files),
        tokenizer=partial(tokenizer_of, path),
        values=_values(model, info),
    )


def _values(model: Model, info: dict[str, TensorInfo]) -> dict[str, Any]:
    """Values without a place in config.json: rotary factors and magnitude, and keys forq does not know."""
    keys = model.file.keys
    extra: dict[str, Any] = {"unknown_keys": keys.unknown()}
    if model.entry.factors in info:
        extra["rope_factors"] = model.entry.factors
    if (magnitude := _gguf_rope.magnitude(keys)) != 1.0:
        extra["rope_magnitude"] = magnitude
        extra["rope_magnitude_local"] = model.entry.local_magnitude
    notes = model.entry.notes(model.file)
    if beside := _gguf_shards.projectors(model.path):
        notes += (f"forq reads text alone: {', '.join(beside)} beside the model is neither read nor copied",)
    if notes:
        extra["notes"] = notes
    return extra


def tokenizer_of(path: Path) -> Any:
    """The tokenizer that a file describes, a ``PreTrainedTokenizerFast``."""
    return _gguf_tokenizer.tokenizer(path, _gguf_header.read(path).values)
