"""The layout of a checkpoint, from its headers alone: format, quantized layers, architecture, names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.onnx.images import GraphImages, reads_images
from forq.errors import FormatError
from forq.formats import Format, recognised
from forq.formats.codecs.onnx_products import UNREAD
from forq.layers.layer import LayerSpec
from forq.models.families import family_of
from forq.models.graph.causal import check_head
from forq.models.graph.inputs import Inputs, logits_of
from forq.models.names import Names, assign
from forq.models.skeleton import skeleton
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

    form: Format | None
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
    specs = {} if form is None else form.layers(ckpt)
    model = skeleton(ckpt.config, dtype)
    return Layout(form, specs, model, assign(ckpt, family, model, specs), family.kind)


def _graph_layout(ckpt: Checkpoint) -> Layout:
    """The layout of an ONNX graph: it has quantized layers and no architecture to fill.

    Raises:
        FormatError: no layer is quantized or can move, or the graph is neither a causal language model nor a network
            on images.
    """
    assert ckpt.graph is not None
    form = recognised(ckpt)
    if form is None:
        unread = sorted({node.op for node in ckpt.graph.nodes} & set(UNREAD))
        raise FormatError(
            f"{ckpt.path}: expected MatMulNBits nodes, weights behind DequantizeLinear or integer operators in the "
            f"graph, found {'none' if not unread else ', '.join(unread) + ', which forq does not read'}: "
            "quantize it with onnxruntime's quantizer, or tune the safetensors it was exported from"
        )
    kind: Kind = "images" if reads_images(ckpt.graph) else "causal"
    if kind == "images":
        GraphImages.of(ckpt.graph, ckpt.folder)  # refuses the graphs that a load would refuse
    else:
        Inputs.of(ckpt), logits_of(ckpt)
        check_head(ckpt)
    specs = form.layers(ckpt)
    if not specs:
        raise FormatError(f"{ckpt.path}: expected a weight that can move, found none; {' '.join(form.unlike(ckpt))}")
    return Layout(form, specs, nn.Module(), Names({}, {}, {spec.name: spec.name for spec in specs.values()}), kind)
