"""Which tensor of the checkpoint fills which place of the model: none missing, none left over."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.layers.layer import LayerSpec
from forq.models.families import Family
from forq.models.skeleton import base


class FileNames:
    """The assignment of a checkpoint's tensors to a model's parameters.

    Attributes:
        file_of: from the name of a float parameter to the checkpoint's name of the tensor that fills it,
            biases of quantized layers included. Tied parameters have the one name the file stores; where it stores
            the same tensor twice, the embedding's.
        twins: from that name to the other of the same tensor.

    Raises:
        FormatError: a parameter no tensor fills, a tensor no parameter takes, or one of another shape.
    """

    def __init__(self, ckpt: Checkpoint, family: Family, model: nn.Module, specs: Mapping[str, LayerSpec]) -> None:
        self._family = family
        self._base = base(model)
        self._places = dict(model.state_dict(keep_vars=True))
        self._modules = {name for name, _ in model.named_modules()}
        self.twins: dict[str, str] = {}
        self.file_of = self._assign(ckpt, model, specs)

    def module_of(self, spec: LayerSpec) -> str:
        """Name of the module a quantized layer stands for."""
        for name in (spec.name, self._base + spec.name):
            if name in self._modules:
                return name
        raise FormatError(f"{spec.name}: expected a layer of the model config.json describes, found none of that name")

    def _assign(self, ckpt: Checkpoint, model: nn.Module, specs: Mapping[str, LayerSpec]) -> dict[str, str]:
        quantized = {name for spec in specs.values() for name in spec.tensors}
        filled = {f"{self.module_of(spec)}.{kind}" for spec in specs.values() for kind in ("weight", "bias")}
        # A head that is tied to a quantized embedding is the same layer.
        filled |= {head for head, embedding in ties(model).items() if embedding in filled}
        wanted = set(self._places) - filled
        found: dict[str, str] = {}
        extra: list[str] = []
        for name in ckpt.info:
            if name in quantized or name.endswith(self._family.ignored or ("\0",)):
                continue
            place = self._family.place(name)
            place = place if place in wanted else self._base + place
            if place in wanted:
                found[place] = name
            else:
                extra.append(name)
        found |= _tied(model, found)
        missing = sorted(wanted - set(found))
        if missing or extra:
            raise FormatError(
                f"{ckpt.path}: expected a tensor for every parameter of the model and no other; "
                f"missing: {_some(missing)}; unexpected: {_some(sorted(extra))}"
            )
        for head, embedding in ties(model).items():
            one, other = found.get(embedding), found.get(head)
            # transformers, too, ties what is equal and leaves apart what is not.
            if one and other and one != other and ckpt.same(one, other):
                self.twins[one] = other
                found[head] = one
        for place, name in found.items():
            shape, dtype = tuple(self._places[place].shape), ckpt.info[name].dtype
            if ckpt.info[name].shape != shape or not dtype.is_floating_point:
                raise FormatError(
                    f"{name}: expected floats of shape {shape} by config.json, found {dtype} of shape "
                    f"{ckpt.info[name].shape}"
                )
        kept = {f"{self.module_of(spec)}.bias": spec.bias for spec in specs.values() if spec.bias is not None}
        return found | {place: name for place, name in kept.items() if place in self._places}


class NoNames:
    """The assignment of a checkpoint that is a graph: its float tensors fill no place of a model, and do not move."""

    def __init__(self) -> None:
        self.file_of: dict[str, str] = {}
        self.twins: dict[str, str] = {}

    def module_of(self, spec: LayerSpec) -> str:
        """The layer itself."""
        return spec.name


def _tied(model: nn.Module, found: Mapping[str, str]) -> dict[str, str]:
    """The head's place, filled by the embedding's tensor where the configuration ties the two and the file has one."""
    result = {}
    for head, embedding in ties(model).items():
        if embedding not in found and head in found:
            result[embedding] = found[head]
        elif embedding in found and head not in found:
            result[head] = found[embedding]
    return result


def ties(model: nn.Module) -> Mapping[str, str]:
    """From the places of heads to those of the embeddings they share a tensor with, by configuration."""
    ties: Mapping[str, str] = getattr(model, "_tied_weights_keys", None) or {}
    return ties if getattr(getattr(model, "config", None), "tie_word_embeddings", False) else {}


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "none"
