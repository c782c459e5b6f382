"""Translate a GGUF file of a Stable Diffusion 3 transformer to diffusers' tensor names and layout."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forq.checkpoints.containers.gguf import header as _gguf_header
from forq.checkpoints.containers.gguf.header import Header, Placed
from forq.checkpoints.containers.gguf.tensors import Part, read
from forq.checkpoints.tensor import TensorInfo
from forq.errors import FormatError

KIND = "sd3"
"""Value of general.architecture; files of stable-diffusion.cpp lack the key."""

_PREFIX = "model.diffusion_model."
OUTSIDE = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
# Three names stand for queries, keys and values, whose rows the file joins in one matrix.
INSIDE = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn.ln_q": ("attn.norm_q",),
    "x_block.attn.ln_k": ("attn.norm_k",),
    "x_block.attn.proj": ("attn.to_out.0",),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn2.ln_q": ("attn2.norm_q",),
    "x_block.attn2.ln_k": ("attn2.norm_k",),
    "x_block.attn2.proj": ("attn2.to_out.0",),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "x_block.adaLN_modulation.1": ("norm1.linear",),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "context_block.attn.ln_q": ("attn.norm_added_q",),
    "context_block.attn.ln_k": ("attn.norm_added_k",),
    "context_block.attn.proj": ("attn.to_add_out",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
    "context_block.adaLN_modulation.1": ("norm1_context.linear",),
}


def is_transformer(header: Header) -> bool:
    """Whether a file holds a transformer of Stable Diffusion 3."""
    names = (tensor.name.removeprefix(_PREFIX) for tensor in header.tensors)
    return header.values.get("general.architecture", KIND) == KIND and any(
        name.startswith(("joint_blocks.", "transformer_blocks.")) for name in names
    )


def tensors(path: Path, config: Mapping[str, Any]) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The tensors' locations by diffusers' names, and the types of the quantized ones.

    The file may use diffusers' names itself.

    Args:
        config: the transformer's config.json of diffusers.

    Raises:
        FormatError: the file is damaged, or holds another model.
    """
    header = _gguf_header.read(path)
    if not is_transformer(header):
        architecture = header.values.get("general.architecture")
        raise FormatError(
            f"{path}: expected a transformer of Stable Diffusion 3, general.architecture {KIND}, found "
            f"{architecture!r:.80}"
        )
    return read(path, header, lambda tensor: _parts(path, tensor, config))


def _parts(path: Path, tensor: Placed, config: Mapping[str, Any]) -> list[Part]:
    """diffusers' tensors that a tensor of the file holds. An unknown name is kept; no parameter has it."""
    name = tensor.name.removeprefix(_PREFIX)
    if name in ("pos_embed", "pos_embed.pos_embed"):
        # Some writers drop the leading dimension of size 1.
        return [Part("pos_embed.pos_embed", (1, *tensor.shape) if len(tensor.shape) == 2 else tensor.shape)]
    head, _, own = name.rpartition(".")
    if head in ("x_embedder.proj", "pos_embed.proj") and own == "weight":
        return [Part("pos_embed.proj.weight", _kernel(tensor.shape, config))]
    inside = re.fullmatch(r"joint_blocks\.(\d{1,6})\.(.+)", head)
    places: tuple[str, ...] = (OUTSIDE.get(head, head),)
    if inside is not None and inside[2] in INSIDE:
        places = tuple(f"transformer_blocks.{inside[1]}.{place}" for place in INSIDE[inside[2]])
    rows, rest = divmod(tensor.shape[0], len(places))
    swapped = head == "final_layer.adaLN_modulation.1" or head == _last(config)
    if rest or (swapped and rows % 2):
        parts = len(places) if rest else 2
        raise FormatError(f"{path}: {tensor.name}: expected rows in {parts} equal parts, found {tensor.shape[0]}")
    order = halves_swapped if swapped else None
    return [
        Part(f"{place}.{own}" if place else own, (rows, *tensor.shape[1:]), nth * rows, order)
        for nth, place in enumerate(places)
    ]


def _kernel(shape: tuple[int, ...], config: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of the patch embedding's convolution; some writers flatten it to a matrix."""
    inputs, patch = config.get("in_channels", 16), config.get("patch_size", 2)
    whole = type(inputs) is int and type(patch) is int
    if len(shape) < 4 and whole and math.prod(shape[1:]) == inputs * patch * patch:
        return (shape[0], inputs, patch, patch)
    return shape


def _last(config: Mapping[str, Any]) -> str:
    """Name of the context modulation in the last block, which has only a scale and a shift."""
    layers = config.get("num_layers", 18)
    return f"joint_blocks.{layers - 1}.context_block.adaLN_modulation.1" if type(layers) is int else ""


def halves_swapped(rows: int) -> Tensor:
    """Row order of a modulation: the file stores shifts before scales, diffusers scales before shifts."""
    return torch.arange(rows).roll(rows // 2)
