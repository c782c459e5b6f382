"""Adapters as PEFT keeps them: a folder with adapter_config.json and adapter_model.safetensors.

Of a grid the folder also holds ``adapter_codes.safetensors``, the whole numbers themselves; PEFT's file has them times
their cell, rounded to float32 as our own forward has them. PEFT (0.21) reads the two files it knows and leaves the
third alone.
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
        folder: new, or an adapter's that is replaced.
        base: the checkpoint the adapter belongs to.
        adapters: which layers have one, of what rank.
        tensors: the factors by name: float32, or whole numbers of a grid.

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
            # One entry: safetensors writes several in any order, and the same run gives the same bytes.
            told = {"grid": json.dumps({"bits": bits, "cells": cells})}
            save_file({name: tensors[name].cpu().contiguous() for name in grid}, fresh / CODES, metadata=told)

    replace_folder(folder, fill)


def read(model: LoadedModel, folder: Path) -> None:
    """Lay the adapter of a PEFT folder beside the layers of a loaded model, in float32.

    Raises:
        FormatError: no adapter is there, one of a kind forq does not know, or one of another model.
    """
    if not (folder / CONFIG).is_file() or not (folder / FLOATS).is_file():
        raise FormatError(f"{folder}: expected an adapter, {CONFIG} and {FLOATS} as PEFT writes them, found none")
    settings = adapter_settings.read(folder / CONFIG)
    layers = linears(model)
    try:
        with safe_open(folder / FLOATS, framework="pt") as file:
            held = set(file.keys())
            found = []
            for module, (outputs, inputs) in layers.items():
                a, b = names(module)
                if a not in held and b not in held:
                    continue
                rank = settings.rank_of(module)
                want = {a: [rank, inputs], b: [outputs, rank]}
                for name, shape in want.items():
                    # Sizes before bytes: a header may claim anything.
                    if name not in held or file.get_slice(name).get_shape() != shape:
                        there = file.get_slice(name).get_shape() if name in held else "none"
                        raise FormatError(f"{folder / FLOATS}: expected {name} of shape {shape}, found {there}")
                pair = [_factor(name, file.get_tensor(name)) for name in want]
                found.append(Adapter(module, pair[0], pair[1], settings.alpha_of(module)))
                held -= set(want)
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{folder / FLOATS}: expected a safetensors file, found {error}") from error
    if held or not found:
        some = ", ".join(sorted(held)[:3]) or "no factor"
        raise FormatError(f"{folder / FLOATS}: expected factors of this model's linear layers, found {some}")
    attach(model, found)


def holds(folder: Path, adapters: Sequence[Adapter], tensors: Mapping[str, Tensor]) -> bool | None:
    """Whether an adapter's folder holds exactly these factors; ``None`` if there is no folder."""
    if not folder.is_dir():
        return None
    try:
        with safe_open(folder / FLOATS, framework="pt") as file:
            wanted = {factor.name: _float(factor, tensors[factor.name]) for one in adapters for factor in one}
            same = set(file.keys()) == set(wanted)
            return same and all(torch.equal(file.get_tensor(name), x) for name, x in wanted.items())
    except (SafetensorError, OSError):
        return False


def _factor(name: str, stored: Tensor) -> TensorLeaf:
    return TensorLeaf(name, "lora", torch.float32, finite.check(name, stored).float())


def _float(factor: Factor, x: Tensor) -> Tensor:
    x = x.detach().cpu().float().contiguous()
    return x.mul(factor.cell) if isinstance(factor, GridFactor) else x


def _settings(base: Checkpoint, adapters: Sequence[Adapter]) -> dict[str, object]:
    one = adapters[0]
    alpha = int(one.alpha) if one.alpha.is_integer() else one.alpha
    return {
        "peft_type": "LORA",
        "task_type": _TASKS[family_of(base.config).kind],
        "base_model_name_or_path": str(base.path),
        "r": one.rank,
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
    """The layer a factor belongs to, by PEFT's name of the factor."""
    return name.removeprefix(PREFIX).rpartition(".lora_")[0]
