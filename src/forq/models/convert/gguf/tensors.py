"""The tensors of a model as a GGUF file holds them: llama.cpp's names and row order, quantized layers in blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.gguf import model as gguf_model
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
from forq.models.convert.gguf.header import architecture, rope_factors
from forq.models.layout import Layout

_INSIDE = (
    *("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "attn_q_norm", "attn_k_norm"),
    *("ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
)
_OUTSIDE = ("token_embd", "output_norm", "output")
_ENDS = ("weight", "bias")

Turn = Callable[[Tensor], Tensor]
"""From rows in transformers' order to rows in the file's."""


def names(layers: int) -> dict[str, str]:
    """llama.cpp's names of all tensors, by transformers'."""
    own = [f"blk.{layer}.{part}" for layer in range(layers) for part in _INSIDE]
    return {gguf_model.place(f"{name}.{end}"): f"{name}.{end}" for name in (*own, *_OUTSIDE) for end in _ENDS}


def turn_of(config: Any, name: str, rows: int) -> Turn:
    """How the rows of a tensor of transformers' name are turned for the file."""
    settings = {
        "model_type": architecture(config),
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
    }
    order = gguf_model.order(Path(name), name, (rows,), settings)
    if order is None:
        return lambda tensor: tensor
    return partial(placed, order(rows))


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
    theirs = names(config.num_hidden_layers)
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
