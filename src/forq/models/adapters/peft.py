"""Read and write PEFT's adapter folders: adapter_config.json and adapter_model.safetensors.

Adapters on an integer grid have a third file, ``adapter_codes.safetensors``, with the integers.
PEFT's file holds these integers times their cell, rounded to float32 as in forq's own forward. PEFT
(0.21) ignores the third file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from forq.checkpoints import Checkpoint, finite
from forq.checkpoints.replace import check_destination, replace_folder
from forq.checkpoints.tensor import byte_view
from forq.errors import FormatError
from forq.layers.leaves import TensorLeaf
from forq.layers.lora import PREFIX, Adapter, Factor, GridFactor, names, typical
from forq.models.adapters import settings as adapter_settings
from forq.models.adapters.lora import attach, linears
from forq.models.adapters.settings import CONFIG, AdapterSettings
from forq.models.families import family_of
from forq.models.loaded import LoadedModel
from forq.tokens.model import Kind

FLOATS, CODES = "adapter_model.safetensors", "adapter_codes.safetensors"

_TASKS: Mapping[Kind, str | None] = {
    "causal": "CAUSAL_LM",
    "encoder": "FEATURE_EXTRACTION",
    "masked": None,
    # SEQ_CLS would make PEFT expect a trained copy of the head in the adapter's file.
    "classifier": None,
    "diffusion": None,
    "images": None,
}
"""PEFT's ``task_type`` by the kind of model."""


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
        FormatError: see :func:`opened`.
    """
    attach(model, opened(model, folder))


def configured(folder: Path) -> AdapterSettings:
    """The settings of an adapter's folder.

    Raises:
        FormatError: the folder holds no adapter, or one with a setting that forq does not compute.
    """
    if not (folder / CONFIG).is_file() or not (folder / FLOATS).is_file():
        run = f"; name {folder / 'adapter'}" if (folder / "adapter" / CONFIG).is_file() else ""
        raise FormatError(f"{folder}: expected an adapter, {CONFIG} and {FLOATS} as PEFT writes them, found none{run}")
    return adapter_settings.read(folder / CONFIG)


def opened(model: nn.Module, folder: Path) -> list[Adapter]:
    """The adapters of a PEFT folder, in float32; the model need not have weights.

    Raises:
        FormatError: the folder holds no adapter, an unknown kind of adapter, or another model's.
    """
    settings = configured(folder)
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
                if not settings.chosen.carries(module):
                    raise FormatError(
                        f"{folder / CONFIG}: expected target_modules to name all layers that have factors in {FLOATS}, "
                        f"found none for {module} (or exclude_modules or layers_to_transform leaves it out), whose "
                        "factors PEFT leaves out: name the layer there, or take its factors out of the file"
                    )
                alpha = settings.alpha_of(module)
                first, second = (_factor(name, file.get_tensor(name)) for name in shapes)
                # Of an adapter that was not trained yet B is zero.
                second = replace(second, typical=typical(rank, alpha) if alpha > 0 else second.typical)
                adapters.append(Adapter(module, first, second, alpha))
                unread -= set(shapes)
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{folder / FLOATS}: expected a safetensors file, found {error}") from error
    if unread or not adapters:
        some = ", ".join(sorted(unread)[:3]) or "no factor"
        raise FormatError(f"{folder / FLOATS}: expected factors of this model's linear layers, found {some}")
    return adapters


def digest(adapters: Sequence[Adapter]) -> str:
    """Digest of float adapters: blake2b over each layer's name, α, shapes and factors, in name order."""
    state = hashlib.blake2b(digest_size=32)
    for adapter in sorted(adapters, key=lambda one: one.module):
        shapes = [list(factor.shape) for factor in adapter]
        head = json.dumps([adapter.module, adapter.alpha, shapes]).encode()
        state.update(len(head).to_bytes(8, "little") + head)
        for factor in adapter:
            state.update(byte_view(factor.read().cpu()))
    return state.hexdigest()


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
    first = adapters[0]
    # Adapters that forq begins are alike; those of a folder may have a rank and an alpha of their own.
    ranks = {adapter.module: adapter.rank for adapter in adapters if adapter.rank != first.rank}
    alphas = {adapter.module: _plain(adapter.alpha) for adapter in adapters if adapter.alpha != first.alpha}
    patterns = {key: pattern for key, pattern in (("rank_pattern", ranks), ("alpha_pattern", alphas)) if pattern}
    return {
        "peft_type": "LORA",
        "task_type": _TASKS[family_of(base.config).kind],
        "base_model_name_or_path": str(base.path),
        "r": first.rank,
        "lora_alpha": _plain(first.alpha),
        "target_modules": [adapter.module for adapter in adapters],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        **patterns,
    }


def _plain(alpha: float) -> int | float:
    return int(alpha) if alpha.is_integer() else alpha


def module_of(name: str) -> str:
    """The name of a factor's layer, from PEFT's name of the factor."""
    return name.removeprefix(PREFIX).rpartition(".lora_")[0]
