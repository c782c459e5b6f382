"""The tensors of a model as a GGUF file holds them: llama.cpp's names and row order, quantized layers in blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.gguf.architectures import ARCHITECTURES
from forq.checkpoints.containers.gguf.architectures.architecture import INSIDE, Described
from forq.checkpoints.containers.gguf.keys import Keys
from forq.checkpoints.containers.gguf.kinds import BLOCKS
from forq.checkpoints.containers.gguf.kinds import NUMBERS as BLOCK_NUMBERS
from forq.checkpoints.containers.gguf.rope import FACTORS
from forq.checkpoints.containers.gguf.write import NUMBERS, Stored
from forq.errors import FormatError
from forq.formats import Format
from forq.layers.layer import LayerSpec
from forq.layers.weight import QuantWeight
from forq.models import parts as layer_parts
from forq.models.convert.gguf.blocks import kind_of, packed
from forq.models.convert.gguf.header import architecture, keys, rope_factors
from forq.models.layout import Layout

_ENDS = ("weight", "bias")

Turn = Callable[[Tensor], Tensor]
"""From rows in transformers' order to rows in the file's."""


def names(config: Any) -> Mapping[str, str]:
    """llama.cpp's names of all tensors of a model, by transformers'."""
    return _names(architecture(config), config.num_hidden_layers)


@cache
def _names(kind: str, layers: int) -> Mapping[str, str]:
    entry = ARCHITECTURES[kind]
    own = [f"blk.{layer}.{part}" for layer in range(layers) for part in entry.inside]
    every = (f"{name}.{end}" for name in (*own, *entry.outside) for end in _ENDS)
    return {place: name for name in every for place in entry.place(name)}


def turn_of(config: Any, name: str, rows: int) -> Turn:
    """How the rows of a tensor of transformers' name are turned for the file."""
    kind, inside = architecture(config), INSIDE.fullmatch(names(config).get(name, ""))
    order = None if inside is None else ARCHITECTURES[kind].orders.get(inside[2])
    if order is None:
        return lambda tensor: tensor
    file = Described(Keys(Path(name), kind, keys(config, "")), {})
    return partial(placed, order(file)(rows))


def placed(places: Tensor, tensor: Tensor) -> Tensor:
    """Rows at the places that a file has them at, int64 (rows,)."""
    out = torch.empty_like(tensor)
    out[places] = tensor
    return out


def stored(ckpt: Checkpoint, layout: Layout) -> tuple[list[Stored], Counter[str]]:
    """Every tensor of the file, and how many quantized layers have which type.

    Raises:
        FormatError: a layer (named) cannot be held, or a tensor has no name in llama.cpp.
    """
    config: Any = layout.model.config
    theirs = names(config)
    found, types = [], Counter[str]()
    for place, name in _floats(layout).items():
        found.append(_float(ckpt, config, place, name, _name(theirs, place)))
    assert layout.form is not None
    for spec in layout.specs.values():
        place = f"{layout.names.modules[spec.name]}.weight"
        one = _quantized(ckpt, layout.form, spec, config, place, _name(theirs, place))
        types[BLOCKS[one.kind].name] += 1
        found.append(one)
    if (factors := rope_factors(config)) is not None:
        found.append(Stored(FACTORS, NUMBERS[torch.float32], tuple(factors.shape), lambda: factors))
    order = {name: place for place, name in enumerate((FACTORS, *theirs.values()))}
    return sorted(found, key=lambda one: order[one.name]), types


def _name(theirs: Mapping[str, str], place: str) -> str:
    if place not in theirs:
        raise FormatError(f"{place}: expected a tensor that llama.cpp has a name for, found another; export to float16")
    return theirs[place]


def _floats(layout: Layout) -> dict[str, str]:
    """Names in the checkpoint by places in the model; a tied head is left out."""
    found: dict[str, str] = {}
    held: set[str] = set()
    for place, name in sorted(layout.names.file_of.items(), key=lambda item: item[0].startswith("lm_head")):
        if name not in held:
            found[place] = name
            held.add(name)
    return found


def _float(ckpt: Checkpoint, config: Any, place: str, name: str, theirs: str) -> Stored:
    info = ckpt.info[name]
    # llama.cpp adds and multiplies by vectors in float32 alone.
    dtype = info.dtype if len(info.shape) > 1 else torch.float32
    if dtype not in NUMBERS:
        raise FormatError(f"{name}: expected float32, float16 or bfloat16, found {dtype}; export to float16")
    turn = turn_of(config, place, info.shape[0])
    return Stored(theirs, NUMBERS[dtype], info.shape, lambda: turn(ckpt.read(name).to(dtype)))


def _quantized(ckpt: Checkpoint, form: Format, spec: LayerSpec, config: Any, place: str, theirs: str) -> Stored:
    turn = turn_of(config, place, spec.out_features)
    weight, scales = _read(ckpt, form, spec)
    try:
        kind = kind_of(weight, scales)
    except FormatError as error:
        raise FormatError(f"{spec.name}: {error}") from None

    def make() -> Tensor:
        return turn(packed(*_read(ckpt, form, spec), kind))

    return Stored(theirs, BLOCK_NUMBERS[kind.name], spec.shape, make)


def _read(ckpt: Checkpoint, form: Format, spec: LayerSpec) -> tuple[QuantWeight, Tensor]:
    """Codes and scales (groups, out) of a layer."""
    parts = layer_parts.read(form, ckpt, spec)
    weight = parts.weight
    if not isinstance(weight, QuantWeight) or weight.levels is not None or weight.zeros.is_floating_point():
        raise FormatError(
            f"{spec.name}: expected codes with a scale and an integer zero point for each group, found others, which "
            "GGUF cannot hold; export to float16, and quantize with llama.cpp"
        )
    return weight, parts.arrange(parts.live[0].float())
