"""Write a LoRA adapter as a GGUF file that llama.cpp applies to the GGUF file of its base.

    adapter.lora.alpha               α; llama.cpp scales each product by α/r
    NAME.weight.lora_a               float32 (r, in)
    NAME.weight.lora_b               float32 (out, r), rows in the order of the base's rows

llama.cpp knows one α. Factors B of layers with another are multiplied by what they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.gguf import header, shards
from forq.checkpoints.containers.gguf.model import Model
from forq.checkpoints.containers.gguf.write import NUMBERS, Stored, Value, write
from forq.errors import FormatError
from forq.layers.lora import Adapter
from forq.models.adapters import peft
from forq.models.convert.gguf.header import architecture
from forq.models.convert.gguf.tensors import Turn, names, placed, turn_of
from forq.models.layout import layout

FILE = "adapter.gguf"


@dataclass(frozen=True, slots=True, eq=False)
class _Base:
    """What a file says of the base.

    Attributes:
        architecture: general.architecture of the base's GGUF file.
        theirs: llama.cpp's names of matrices by transformers'.
        turn: how the rows of a matrix of transformers' name are turned, given their number.
        note: what llama.cpp needs as the base.
    """

    architecture: str
    theirs: Mapping[str, str]
    turn: Callable[[str, int], Turn]
    note: str


@dataclass(frozen=True, slots=True)
class Written:
    """What :func:`write_adapter` wrote.

    Attributes:
        layers: number of layers with factors.
        weights: number of values in the factors.
        changed: number of values of B that were rounded, where layers differ in α.
        notes: sentences for the user.
    """

    layers: int
    weights: int
    changed: int
    notes: tuple[str, ...]


def write_adapter(ckpt: Checkpoint, folder: Path, out: Path) -> Written:
    """Write the adapter of a PEFT folder.

    Args:
        ckpt: the base.
        out: an empty folder.

    Raises:
        FormatError: the folder holds no adapter of this base, or llama.cpp has no name for a layer or for the model.
    """
    if ckpt.graph is not None or ckpt.contents.component:
        raise FormatError(f"{ckpt.path}: expected a language model, found another; llama.cpp has no adapters for it")
    model: Any = layout(ckpt).model
    adapters = peft.opened(model, folder)
    base = _of_file(ckpt) if ckpt.path.suffix == ".gguf" else _of_config(ckpt, model.config)
    alpha = adapters[0].alpha
    if alpha <= 0:
        raise FormatError(f"{folder}: expected a positive lora_alpha, found {alpha}; llama.cpp takes 0 for none")
    tensors = [one for adapter in adapters for one in _pair(base, adapter, alpha)]
    values: dict[str, Value] = {
        "general.type": "adapter",
        "general.architecture": base.architecture,
        "general.name": folder.resolve().parent.name,
        "adapter.type": "lora",
        "adapter.lora.alpha": float(alpha),
    }
    write(out / FILE, values, tensors)
    others = [adapter for adapter in adapters if adapter.alpha != alpha]
    changed = sum(_rounded(adapter, alpha) for adapter in others)
    notes = [base.note]
    if others:
        notes.append(f"{len(others)} layers have an alpha of their own, which their factors B carry")
    count = sum(factor.read().numel() for adapter in adapters for factor in adapter)
    return Written(len(adapters), count, changed, tuple(notes))


def _of_file(ckpt: Checkpoint) -> _Base:
    found = header.read(ckpt.path)
    shapes = shards.shapes(shards.files(ckpt.path, found))
    model = Model(ckpt.path, found.values, shapes)
    # A matrix that holds several of transformers' has no place of its own for an adapter.
    places = ((model.place(name), name) for name in shapes)
    theirs = {place[0]: name for place, name in places if len(place) == 1}

    def turn(name: str, rows: int) -> Turn:
        info = ckpt.info.get(name) or ckpt.info[f"{name}.d"]
        if info.order is None:
            return _same
        return partial(placed, info.order(rows))

    return _Base(
        str(found.values["general.architecture"]), theirs, turn, f"{FILE} belongs to {ckpt.path.name}: llama.cpp --lora"
    )


def _of_config(ckpt: Checkpoint, config: Any) -> _Base:
    kind, theirs = architecture(config), dict(names(config))
    if config.tie_word_embeddings:
        theirs.pop("lm_head.weight", None)
    note = (
        f"{FILE} belongs to a GGUF file of {ckpt.path.name}, which llama.cpp needs beside it: forq export {ckpt.path} "
        "--to gguf, or llama.cpp's convert_hf_to_gguf.py for a float base"
    )
    return _Base(kind, theirs, lambda name, rows: turn_of(config, name, rows), note)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _pair(base: _Base, adapter: Adapter, alpha: float) -> list[Stored]:
    name = f"{adapter.module}.weight"
    if name not in base.theirs:
        raise FormatError(f"{adapter.module}: expected a layer that the GGUF file of the base has, found none there")
    a, b = adapter.a.read(), _folded(adapter, alpha)
    turn, number = base.turn(name, len(b)), NUMBERS[torch.float32]
    theirs = base.theirs[name]
    return [
        Stored(f"{theirs}.lora_a", number, tuple(a.shape), lambda: a),
        Stored(f"{theirs}.lora_b", number, tuple(b.shape), lambda: turn(b)),
    ]


def _folded(adapter: Adapter, alpha: float) -> Tensor:
    """B where every layer has the same α."""
    b = adapter.b.read()
    return b if adapter.alpha == alpha else (b.double() * (adapter.alpha / alpha)).float()


def _rounded(adapter: Adapter, alpha: float) -> int:
    """How many values of B are no longer exactly the same share of the product."""
    exact = adapter.b.read().double() * adapter.alpha
    return int(torch.count_nonzero(_folded(adapter, alpha).double() * alpha != exact))
