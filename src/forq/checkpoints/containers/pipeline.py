"""A pipeline of diffusers: model_index.json and a folder for each component. Its denoiser is the checkpoint.

    model_index.json    the class of each component
    transformer/        config.json with diffusion_pytorch_model.safetensors, or shards and an index, or one .gguf
    vae/ text_encoder/ …

Tensor names are those in the transformer's files. File paths are relative to the pipeline's folder, so
a save writes the whole pipeline and copies the other components.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from forq.checkpoints.containers.gguf import sd3 as _gguf_sd3
from forq.checkpoints.contents import Contents
from forq.checkpoints.pointers import SHARDED
from forq.checkpoints.tensor import TensorInfo
from forq.errors import FormatError

INDEX, COMPONENT = "model_index.json", "transformer"
WEIGHTS = "diffusion_pytorch_model.safetensors"
KNOWN = ("StableDiffusion3Pipeline",)
"""Pipelines that forq can load."""


def is_pipeline(path: Path) -> bool:
    """Whether a folder holds a pipeline, and not a single model."""
    return (path / INDEX).is_file() and not (path / "config.json").is_file()


def contents(
    path: Path,
    read_json: Callable[[Path], dict[str, Any]],
    tensors: Callable[[Path, str], dict[str, TensorInfo]],
) -> Contents:
    """Read the contents of a pipeline's denoiser from its headers.

    Args:
        read_json: reads a JSON object.
        tensors: lists the tensors of a folder, given the name of its weights file.

    Raises:
        FormatError: the pipeline is of an unknown class, its denoiser is missing, or the denoiser has both
            GGUF and safetensors.
    """
    index = read_json(path / INDEX)
    name, folder = index.get("_class_name"), path / COMPONENT
    if name not in KNOWN:
        raise FormatError(f"{path / INDEX}: expected a pipeline among {', '.join(KNOWN)}, found {name!r:.80}")
    if not (folder / "config.json").is_file():
        raise FormatError(f"{path}: expected the component {COMPONENT}/ with a config.json, found none")
    config = read_json(folder / "config.json")
    if (file := _gguf(folder)) is None:
        # Unlike transformers, diffusers looks for an index first.
        shards = f"{WEIGHTS}{SHARDED}"
        stored = tensors(folder, shards if (folder / shards).is_file() else WEIGHTS)
    else:
        stored, types = _gguf_sd3.tensors(file, config)
        config["quantization_config"] = {"quant_method": "gguf", "types": types}
    info = {name: replace(tensor, file=f"{COMPONENT}/{tensor.file}") for name, tensor in stored.items()}
    return Contents(config, info, values={"pipeline": json.dumps(index)}, component=COMPONENT)


def _gguf(folder: Path) -> Path | None:
    """The GGUF file that replaces the safetensors, or None."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".gguf"]
    both = [*files, *sorted(folder.glob("*.safetensors"))]
    if files and len(both) > 1:
        raise FormatError(
            f"{folder}: expected one .gguf or safetensors, found {', '.join(file.name for file in both)}: keep one"
        )
    return files[0] if files else None
