"""The layout of a checkpoint, from its headers alone: format, quantized layers, architecture, names."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import nn

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.layers.layer import LayerSpec
from forq.models.families import family_of
from forq.models.graph.inputs import Inputs, logits_of
from forq.models.names import Names, assign
from forq.models.skeleton import skeleton
from forq.plugins import registry
from forq.tokens.model import Kind


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What is known of a checkpoint before any tensor is read.

    Attributes:
        form: format of the quantized layers, or None if every tensor is float.
        specs: the quantized layers, by module name.
        model: the architecture, every tensor on the meta device; empty for a graph.
        names: which tensor fills which parameter.
        kind: kind of model, which decides what it predicts.
    """

    form: ModuleType | None
    specs: dict[str, LayerSpec]
    model: nn.Module
    names: Names
    kind: Kind


def layout(ckpt: Checkpoint, dtype: torch.dtype = torch.float32) -> Layout:
    """Match a checkpoint's headers with the model of its configuration.

    Raises:
        FormatError: the format or family is unknown, or a tensor is missing or left over.
    """
    if ckpt.graph is not None:
        return _graph_layout(ckpt)
    family = family_of(ckpt.config)
    depth = ckpt.config.get("num_hidden_layers", ckpt.config.get("num_layers"))
    if isinstance(depth, int) and depth > len(ckpt.info):
        # Refused here: building the skeleton of a damaged configuration could take hours.
        raise FormatError(
            f"config.json: expected at least one tensor for each of {depth} layers, found {len(ckpt.info)}"
        )
    form = recognised(ckpt)
    specs: dict[str, LayerSpec] = {} if form is None else form.layers(ckpt)
    model = skeleton(ckpt.config, dtype)
    return Layout(form, specs, model, assign(ckpt, family, model, specs), family.kind)


def recognised(ckpt: Checkpoint) -> ModuleType | None:
    """The format of a checkpoint's quantized layers, or None if every tensor is float.

    Raises:
        FormatError: the configuration declares a quantization, and no format recognises the
            tensors.
    """
    known = registry.names("formats")
    for name in known:
        form: ModuleType = registry.get("formats", name)
        if form.recognise(ckpt):
            return form
    declared = ckpt.config.get("quantization_config")
    if declared is not None:
        method = declared.get("quant_method") if isinstance(declared, dict) else declared
        raise FormatError(
            f"{ckpt.path}: expected a format among {', '.join(known)}; found quant_method {method!r} with "
            "tensors none of them recognises"
        )
    return None


def _graph_layout(ckpt: Checkpoint) -> Layout:
    """The layout of an ONNX graph: it has quantized layers and no architecture to fill.

    Raises:
        FormatError: no layer is quantized, or the graph is not a causal language model.
    """
    form = recognised(ckpt)
    if form is None:
        raise FormatError(
            f"{ckpt.path}: expected MatMulNBits nodes in the graph, found none: quantize it with onnxruntime's "
            "MatMulNBitsQuantizer, or tune the safetensors it was exported from"
        )
    Inputs.of(ckpt), logits_of(ckpt)  # refuses the graphs that a load would refuse
    specs: dict[str, LayerSpec] = form.layers(ckpt)
    return Layout(form, specs, nn.Module(), Names({}, {}, {spec.name: spec.name for spec in specs.values()}), "causal")
