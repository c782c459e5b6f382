"""Assign a checkpoint's tensors to the model's parameters: none missing, none left over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.layers.layer import LayerSpec
from forq.models.families import Family
from forq.models.skeleton import base


@dataclass(frozen=True, slots=True)
class Names:
    """The assignment of a checkpoint's tensors to a model's parameters.

    Attributes:
        file_of: maps each float parameter, biases of quantized layers included, to its tensor in
            the checkpoint. Tied parameters map to the tensor the file stores; if it stores it
            twice, to the embedding's.
        twins: maps a tensor that is stored twice to its second name.
        modules: maps a quantized layer's name in the checkpoint to its module's name.
    """

    file_of: Mapping[str, str]
    twins: Mapping[str, str]
    modules: Mapping[str, str]


def assign(ckpt: Checkpoint, family: Family, model: nn.Module, specs: Mapping[str, LayerSpec]) -> Names:
    """Assign every tensor of a checkpoint to a parameter of the model.

    Args:
        model: the architecture, without weights.
        specs: the quantized layers, by name.

    Raises:
        FormatError: a parameter has no tensor, a tensor has no parameter, or a shape differs.
    """
    places = dict(model.state_dict(keep_vars=True))
    modules = _modules(model, specs)
    # Quantized layers fill their own parameters, and those of heads tied to them.
    filled = {f"{module}.{own}" for module in modules.values() for own in ("weight", "bias")}
    filled |= {head for head, embedding in ties(model).items() if embedding in filled}
    wanted = set(places) - filled
    quantized = {name for spec in specs.values() for name in spec.tensors}
    floats = [name for name in ckpt.info if name not in quantized]
    file_of: dict[str, str] = {}
    extra: list[str] = []
    for name in floats:
        place = family.place(name)
        place = place if place in wanted else base(model) + place
        if place in wanted:
            file_of[place] = name
        elif not name.endswith(family.ignored or ("\0",)):
            extra.append(name)
    file_of |= _tied(model, file_of)
    missing = sorted(wanted - set(file_of))
    if missing or extra:
        raise FormatError(
            f"{ckpt.path}: expected a tensor for every parameter of the model and no other; "
            f"missing: {_some(missing)}; unexpected: {_some(sorted(extra))}"
        )
    twins = _merge_twins(ckpt, model, file_of)
    for place, name in file_of.items():
        _check_shape(ckpt, name, tuple(places[place].shape))
    biases = {f"{modules[spec.name]}.bias": spec.bias for spec in specs.values() if spec.bias is not None}
    return Names(file_of | {place: name for place, name in biases.items() if place in places}, twins, modules)


def ties(model: nn.Module) -> Mapping[str, str]:
    """Maps each head's parameter to the embedding parameter it is tied to by configuration."""
    ties: Mapping[str, str] = getattr(model, "_tied_weights_keys", None) or {}
    return ties if getattr(getattr(model, "config", None), "tie_word_embeddings", False) else {}


def _modules(model: nn.Module, specs: Mapping[str, LayerSpec]) -> dict[str, str]:
    known = {name for name, _ in model.named_modules()}
    modules = {}
    for spec in specs.values():
        candidates = (spec.name, base(model) + spec.name)
        if (module := next((name for name in candidates if name in known), None)) is None:
            raise FormatError(
                f"{spec.name}: expected a layer of the model config.json describes, found none of that name"
            )
        modules[spec.name] = module
    return modules


def _merge_twins(ckpt: Checkpoint, model: nn.Module, file_of: dict[str, str]) -> dict[str, str]:
    """Give heads the embedding's tensor where the file stores it twice; like transformers, only if both are equal."""
    twins: dict[str, str] = {}
    for head, embedding in ties(model).items():
        first, second = file_of.get(embedding), file_of.get(head)
        if first and second and first != second and ckpt.same(first, second):
            twins[first] = second
            file_of[head] = first
    return twins


def _check_shape(ckpt: Checkpoint, name: str, shape: tuple[int, ...]) -> None:
    info = ckpt.info[name]
    if info.shape != shape or not info.dtype.is_floating_point:
        raise FormatError(
            f"{name}: expected floats of shape {shape} by config.json, found {info.dtype} of shape {info.shape}"
        )


def _tied(model: nn.Module, file_of: Mapping[str, str]) -> dict[str, str]:
    """Heads and embeddings that the file leaves out because the configuration ties them."""
    result = {}
    for head, embedding in ties(model).items():
        if embedding not in file_of and head in file_of:
            result[embedding] = file_of[head]
        elif embedding in file_of and head not in file_of:
            result[head] = file_of[embedding]
    return result


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "none"
