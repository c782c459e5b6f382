"""Count what a checkpoint holds: weights, coordinates that can move, floats."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.onnx.graph import Graph
from forq.layers.layer import LayerSpec
from forq.models.layout import Layout
from forq.models.leaves import group_of


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of values in a checkpoint.

    Attributes:
        moves: number of coordinates that can move, by kind.
        quantized: number of weights stored as codes.
        floats: number of values in the other tensors of a loaded model.
        parameters: number of weights of the network, in any storage.
    """

    moves: Counter[str]
    quantized: int
    floats: int
    parameters: int


def count(ckpt: Checkpoint, layout: Layout, specs: Mapping[str, LayerSpec]) -> Counts:
    """Count a checkpoint's values.

    Args:
        specs: all quantized layers, including those that do not move.
    """
    sizes = {name: math.prod(info.shape) for name, info in ckpt.info.items()}
    quantized = sum(spec.in_features * spec.out_features for spec in specs.values())
    groups = _groups_of_floats(layout)
    moves = _moves(ckpt, layout, sizes)
    for stored, group in groups.items():
        moves[group] += sizes[stored]
    if ckpt.graph is not None:  # its floats are constants of the graph and do not move
        inside = {name for spec in specs.values() for name in spec.tensors}
        frozen = {name for name, info in ckpt.info.items() if info.dtype.is_floating_point and name not in inside}
        weights = _graph_weights(ckpt, ckpt.graph, specs, frozen)
        return Counts(moves, quantized, _total(sizes, frozen), quantized + _total(sizes, weights))
    # Position tables may be stored in the file; they are not weights.
    weights = {stored for stored, group in groups.items() if group}
    return Counts(moves, quantized, _total(sizes, set(groups)), quantized + _total(sizes, weights))


def _total(sizes: Mapping[str, int], names: set[str]) -> int:
    return sum(sizes[name] for name in names)


def _groups_of_floats(layout: Layout) -> dict[str, str]:
    """The kind of each float tensor by its name in the file; "" for buffers, which do not move."""
    groups: dict[str, str] = {}
    buffers = {name for name, _ in layout.model.named_buffers()}
    for place, stored in layout.names.file_of.items():
        group = "" if place in buffers else _group(layout.model, place)
        # A head tied to the embedding counts as an embedding, whichever comes first.
        groups[stored] = group if group == "embeddings" else groups.get(stored, group)
    return groups


def _moves(ckpt: Checkpoint, layout: Layout, sizes: Mapping[str, int]) -> Counter[str]:
    """Coordinates of the quantized layers, by kind."""
    form = layout.form
    moves: Counter[str] = Counter()
    for spec in layout.specs.values():
        for live in spec.live:
            moves[live.group] += sizes[live.name]
        if form is not None and (codes := form.filed_codes(ckpt, spec)) is not None:
            moves["codes"] += math.prod(codes.shape)
        moves["zeros"] += sizes[spec.live[0].name] if spec.zeros is not None else 0
    for name, group in form.beside(ckpt).items() if form is not None and layout.kind == "images" else ():
        moves[group] += sizes[name]
    return moves


def _graph_weights(ckpt: Checkpoint, graph: Graph, specs: Mapping[str, LayerSpec], floats: set[str]) -> set[str]:
    """The float tensors of a graph that are weights of the network, each counted once.

    Position tables that a rotary operator reads are not weights. An embedding that the
    configuration ties to the head is not counted again. Other lookup tables cannot be told apart
    from weights.
    """
    rotary = ("RotaryEmbedding", "GroupQueryAttention")
    turned = {name for node in graph.nodes if node.op in rotary for name in node.inputs}
    heads = {(spec.out_features, spec.in_features) for spec in specs.values()}
    looked_up = {node.inputs[0] for node in graph.nodes if node.op == "Gather" and node.inputs}
    tied = {name for name in looked_up & floats if ckpt.info[name].shape in heads}
    return floats - turned - (tied if ckpt.config.get("tie_word_embeddings") is True else set())


def _group(model: nn.Module, place: str) -> str:
    where, _, own = place.rpartition(".")
    return group_of(model.get_submodule(where), own)
