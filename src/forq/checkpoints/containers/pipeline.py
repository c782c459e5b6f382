"""A folder of diffusers: model_index.json, and a folder for each component; the checkpoint is its denoiser.

    model_index.json    which class each component is of
    transformer/        config.json, diffusion_pytorch_model.safetensors, or shards and an index, or one .gguf
    vae/ text_encoder/ …

Names of tensors are those of the transformer's own files, whose places are below the pipeline's folder: saving gives
the whole folder back, every other component copied.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from forq.checkpoints.containers.gguf import sd3 as _gguf_sd3
from forq.checkpoints.contents import Contents
from forq.checkpoints.tensor import TensorInfo
from forq.errors import FormatError

INDEX, COMPONENT = "model_index.json", "transformer"
WEIGHTS = "diffusion_pytorch_model.safetensors"
KNOWN = ("StableDiffusion3Pipeline",)
"""Pipelines whose denoiser is built."""


def is_pipeline(path: Path) -> bool:
    """Whether a folder is a pipeline's, and not a model's."""
    return (path / INDEX).is_file() and not (path / "config.json").is_file()


def contents(
    path: Path,
    read_json: Callable[[Path], dict[str, Any]],
    tensors: Callable[[Path, str], dict[str, TensorInfo]],
) -> Contents:
    """What the denoiser of a pipeline holds, from headers alone.

    Args:
        read_json: reads a JSON object.
        tensors: describes the tensors of a folder, given what its weights are called.

    Raises:
        FormatError: a pipeline that is not known (named), a component that is missing, or one with weights twice.
    """
    index = read_json(path / INDEX)
    name, folder = index.get("_class_name"), path / COMPONENT
    if name not in KNOWN:
        raise FormatError(f"{path / INDEX}: expected a pipeline among {', '.join(KNOWN)}, found {name!r:.80}")
    if not (folder / "config.json").is_file():
        raise FormatError(f"{path}: expected the component {COMPONENT}/ with a config.json, found none")
    config = read_json(folder / "config.json")
    if (file := _gguf(folder)) is None:
        found = tensors(folder, WEIGHTS)
    else:
        found, types = _gguf_sd3.tensors(file, config)
        config["quantization_config"] = {"quant_method": "gguf", "types": types}
    info = {name: replace(one, file=f"{COMPONENT}/{one.file}") for name, one in found.items()}
    return Contents(config, info, values={"pipeline": json.dumps(index)}, component=COMPONENT)


def _gguf(folder: Path) -> Path | None:
    """The one GGUF file that holds the tensors in place of safetensors, or None."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".gguf"]
    both = [*files, *sorted(folder.glob("*.safetensors"))]
    if files and len(both) > 1:
        raise FormatError(
            f"{folder}: expected one .gguf or safetensors, found {', '.join(file.name for file in both)}: keep one"
        )
    return files[0] if files else None
