"""What of a loaded model may move, as leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from forq.core import ConfigError
from forq.formats.checkpoint import Checkpoint
from forq.leaves import Leaf
from forq.quant.dense import DenseEmbedding, DenseLinear
from forq.quant.leaf import ScaleLeaf, TensorLeaf
from forq.quant.linear import QuantLinear

_KINDS = {
    "scales": {"scales"},
    "norms": {"norms"},
    "biases": {"biases"},
    "dense": {"dense"},
    "all-float": {"dense", "norms", "biases"},
}


def trainable(model: nn.Module, move: str = "scales") -> list[Leaf]:
    """The leaves of a model :func:`forq.models.load` made, in name order.

    Args:
        move: ``scales``: of the quantized layers. ``norms``: weights and biases of the norms.
            ``biases``: of all other layers. ``dense``: float matrices (linear layers, embeddings).
            ``all-float``: dense, norms and biases, everything MeZO moves.

    Raises:
        ConfigError: ``move`` is unknown, or the model holds nothing of that kind.
    """
    if move not in _KINDS:
        raise ConfigError(f"expected move among {', '.join(_KINDS)}; found {move!r}")
    found = {leaf.name: leaf for leaf in _leaves(model) if leaf.group in _KINDS[move]}
    if not found:
        raise ConfigError(
            f"expected a model with {move} to move, found none in it; "
            + ("quantize it first" if move == "scales" else "try move='scales'")
        )
    return [found[name] for name in sorted(found)]


def _leaves(model: nn.Module) -> Iterator[Leaf]:
    ckpt: Checkpoint = model.checkpoint  # type: ignore[assignment]
    file_of: Mapping[str, str] = model.file_names  # type: ignore[assignment]
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear):
            yield ScaleLeaf(module)
        elif isinstance(module, (DenseLinear, DenseEmbedding)):
            yield module.leaf
        for own, parameter in module.named_parameters(recurse=False):
            if own == "weight" and isinstance(module, (DenseLinear, DenseEmbedding)):
                continue
            stored = file_of[f"{name}.{own}"]
            yield TensorLeaf(stored, group_of(module, own), ckpt.info[stored].dtype, parameter)


def group_of(module: nn.Module, own: str) -> str:
    """The kind of a module's parameter ``own``, quantized weights aside."""
    if "Norm" in type(module).__name__:
        return "norms"
    # A matrix of another module, OPT's positions for example: small enough to be written in place.
    return "biases" if own == "bias" else "dense"
