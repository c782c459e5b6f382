"""Read and write PEFT's adapter folders: adapter_config.json and adapter_model.safetensors.

Adapters on an integer grid have a third file, ``adapter_codes.safetensors``, with the integers.
PEFT's file holds these integers times their cell, rounded to float32 as in forq's own forward. PEFT
(0.21) ignores the third file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from forq.checkpoints import Checkpoint, finite
from forq.checkpoints.replace import check_destination, replace_folder
from forq.errors import FormatError
from forq.layers.leaves import TensorLeaf
from forq.layers.lora import PREFIX, Adapter, Factor, GridFactor, names
from forq.models.adapters import settings as adapter_settings
from forq.models.adapters.lora import attach, linears
from forq.models.adapters.settings import CONFIG
from forq.models.families import family_of
from forq.models.loaded import LoadedModel

FLOATS, CODES = "adapter_model.safetensors", "adapter_codes.safetensors"

_TASKS = {"causal": "CAUSAL_LM", "encoder": "FEATURE_EXTRACTION", "masked": None, "diffusion": None}


def write(folder: Path, base: Checkpoint, adapters: Sequence[Adapter], tensors: Mapping[str, Tensor]) -> None:
    """Write an adapter, whole or not at all.

    Args:
        folder: a new folder, or an adapter's folder to replace.
        base: the checkpoint that the adapter belongs to.
        adapters: the adapters, with their layers and ranks.
        tensors: the factors by name: float32, or integers of a grid.

    Raises:
        ConfigError: the folder cannot be written, or overlaps the base.
    """
    check_destination(base.path, folder, overwrite=True)
    floats = {factor.name: _float(factor, tensors[factor.name]) for adapter in adapters for factor in adapter}
    grid = {f.name: f for adapter in adapters for f in adapter if isinstance(f, GridFactor)}

    def fill(fresh: Path) -> None:
        settings = _settings(base, adapters)
        (fresh / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        save_file(floats, fresh / FLOATS, metadata={"format": "pt"})
        if grid:
            cells = {name: factor.cell for name, factor in grid.items()}
            bits = next(iter(grid.values())).bits
            # A single entry: safetensors writes several in any order, and the same run must give the same bytes.
            metadata = {"grid": json.dumps({"bits": bits, "cells": cells})}
            save_file({name: tensors[name].cpu().contiguous() for name in grid}, fresh / CODES, metadata=metadata)

    replace_folder(folder, fill)


def read(model: LoadedModel, folder: Path) -> None:
    """Attach the adapter of a PEFT folder to a loaded model, in float32.

    Raises:
        FormatError: the folder holds no adapter, an unknown kind of adapter, or another model's.
    """
    if not (folder / CONFIG).is_file() or not (folder / FLOATS).is_file():
        raise FormatError(f"{folder}: expected an adapter, {CONFIG} and {FLOATS} as PEFT writes them, found none")
    settings = adapter_settings.read(folder / CONFIG)
    layers = linears(model)
    try:
        with safe_open(folder / FLOATS, framework="pt") as file:
            unread = set(file.keys())
            adapters = []
            for module, (outputs, inputs) in layers.items():
                a, b = names(module)
                if a not in unread and b not in unread:
                    continue
                rank = settings.rank_of(module)
                shapes = {a: [rank, inputs], b: [outputs, rank]}
                for name, shape in shapes.items():
                    # The shape is checked before the bytes are read: a header may claim any size.
                    if name not in unread or file.get_slice(name).get_shape() != shape:
                        present = file.get_slice(name).get_shape() if name in unread else "none"
                        raise FormatError(f"{folder / FLOATS}: expected {name} of shape {shape}, found {present}")
                pair = [_factor(name, file.get_tensor(name)) for name in shapes]
                adapters.append(Adapter(module, pair[0], pair[1], settings.alpha_of(module)))
                unread -= set(shapes)
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{folder / FLOATS}: expected a safetensors file, found {error}") from error
    if unread or not adapters:
        some = ", ".join(sorted(unread)[:3]) or "no factor"
        raise FormatError(f"{folder / FLOATS}: expected factors of this model's linear layers, found {some}")
    attach(model, adapters)


def holds(folder: Path, adapters: Sequence[Adapter], tensors: Mapping[str, Tensor]) -> bool | None:
    """Whether an adapter folder holds exactly these factors; ``None`` if there is no folder."""
    if not folder.is_dir():
        return None
    try:
        with safe_open(folder / FLOATS, framework="pt") as file:
            expected = {f.name: _float(f, tensors[f.name]) for adapter in adapters for f in adapter}
            same = set(file.keys()) == set(expected)
            return same and all(torch.equal(file.get_tensor(name), x) for name, x in expected.items())
    except (SafetensorError, OSError):
        return False


def _factor(name: str, stored: Tensor) -> TensorLeaf:
    return TensorLeaf(name, "lora", torch.float32, finite.check(name, stored).float())


def _float(factor: Factor, x: Tensor) -> Tensor:
    x = x.detach().cpu().float().contiguous()
    return x.mul(factor.cell) if isinstance(factor, GridFactor) else x


def _settings(base: Checkpoint, adapters: Sequence[Adapter]) -> dict[str, object]:
    first = adapters[0]  # all adapters of a run have the same rank and alpha
    alpha = int(first.alpha) if first.alpha.is_integer() else first.alpha
    return {
        "peft_type": "LORA",
        "task_type": _TASKS[family_of(base.config).kind],
        "base_model_name_or_path": str(base.path),
        "r": first.rank,
        "lora_alpha": alpha,
        "target_modules": [adapter.module for adapter in adapters],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
    }


def module_of(name: str) -> str:
    """The name of a factor's layer, from PEFT's name of the factor."""
    return name.removeprefix(PREFIX).rpartition(".lora_")[0]
