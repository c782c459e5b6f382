"""The leaves of a loaded model: the tensors that may move."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import nn

from forq.coordinates.leaf import GROUPS, Leaf
from forq.errors import ConfigError
from forq.layers.dense import DenseEmbedding, DenseLinear
from forq.layers.leaves import CodeLeaf, LiveLeaf, TensorLeaf, ZeroLeaf
from forq.layers.linear import QuantLinear
from forq.models.loaded import LoadedModel
from forq.plugins import registry

_ALL_FLOAT = ("norms", "biases", "embeddings", "dense")
_MEANT = {"adapter": "lora", "adapters": "lora", "integers": "codes", "zero_points": "zeros"}
"""Other words for kinds, of which no spelling is near."""


def trainable(model: LoadedModel, move: str = "scales", leave: Collection[str] = ()) -> list[Leaf]:
    """The leaves of a loaded model, in name order.

    Args:
        move: kinds of leaves, separated by commas.

            - ``scales``: quantization scales.
            - ``codes``: integer codes of quantized layers; they move by whole cells.
            - ``zeros``: integer zero points; they move by whole cells too.
            - ``offsets``: continuous zero points.
            - ``codebooks``: codebooks of vector-quantized layers.
            - ``norms``: weights and biases of the norms.
            - ``biases``: biases of all other layers.
            - ``activations``: scales of rounded activations, of an ONNX graph.
            - ``embeddings``: embedding matrices, and heads tied to them.
            - ``dense``: matrices of float linear layers.
            - ``lora``: adapters added by :func:`forq.add_lora`.
            - ``all-float``: all float tensors of the file except the scales, as MeZO moves them.
        leave: names of layers whose scales do not move.

    Raises:
        ConfigError: a kind is unknown or named twice, or the model has no leaf of that kind.
    """
    kinds = [kind.strip() for kind in move.split(",")]
    known = [*GROUPS, "all-float"]
    for kind in kinds:
        if kind not in known or kinds.count(kind) > 1:
            meant = _MEANT.get(kind, kind)
            twice = " once each" if kind in known else registry.nearest(meant, known)
            raise ConfigError(f"move: expected kinds among {', '.join(known)}{twice}; found {move!r}")
    if "all-float" in kinds and len(kinds) > 1:
        raise ConfigError(
            "move: all-float cannot be combined with other kinds; name its kinds instead: " + ", ".join(_ALL_FLOAT)
        )
    leaves: dict[str, Leaf] = {}
    layers = [module for name in leave if isinstance(module := model.get_submodule(name), QuantLinear)]
    left_out = {spec.name for layer in layers for spec in layer.specs if spec.group == "scales"}
    for leaf in _leaves(model):
        if leaf.name in left_out:
            continue
        # A head tied to the embedding counts as an embedding, whichever module comes first.
        if leaf.name not in leaves or leaf.group == "embeddings":
            leaves[leaf.name] = leaf
    wanted = _ALL_FLOAT if kinds == ["all-float"] else kinds
    chosen = {name: leaf for name, leaf in leaves.items() if leaf.group in wanted}
    present = sorted({leaf.group for leaf in leaves.values()})
    for kind in kinds:
        if not any(leaf.group == kind or kind == "all-float" for leaf in chosen.values()):
            more = {"scales": "; quantize it first", "lora": "; begin adapters with forq.add_lora"}.get(kind, "")
            if kind == "zeros" and "offsets" in present:
                more = "; its zero points are continuous: --move offsets"
            raise ConfigError(f"expected a model with {kind} to move, found {', '.join(present)} in it{more}")
    for leaf in chosen.values():
        if isinstance(leaf, ZeroLeaf | CodeLeaf):
            leaf.open()
    model.prepare(chosen.values())
    model.lent |= chosen
    return [chosen[name] for name in sorted(chosen)]


def _leaves(model: LoadedModel) -> Iterator[Leaf]:
    for adapter in model.adapters:
        yield from adapter
    yield from model.own_leaves()
    ckpt, file_of = model.checkpoint, model.names
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear):
            for spec in module.specs:
                yield LiveLeaf(module, spec)
            if module.filed_codes is not None:
                yield CodeLeaf(module, module.filed_codes)
            if module.zero_points is not None:
                yield ZeroLeaf(module, module.zero_points)
        elif isinstance(module, (DenseLinear, DenseEmbedding)):
            yield module.leaf
        for own, parameter in module.named_parameters(recurse=False):
            if own == "weight" and isinstance(module, (DenseLinear, DenseEmbedding)):
                continue
            stored = file_of[f"{name}.{own}"]
            yield TensorLeaf(stored, group_of(module, own), ckpt.info[stored].dtype, parameter)


def group_of(module: nn.Module, own: str) -> str:
    """The kind of a module's float parameter ``own``."""
    if "Norm" in type(module).__name__:
        return "norms"
    if isinstance(module, (nn.Embedding, DenseEmbedding)):
        return "embeddings"
    # Matrices of other modules are small enough to be written in place.
    return "biases" if own == "bias" else "dense"
