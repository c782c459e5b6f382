"""Choose the layers of a float checkpoint to quantize: linear layers of its blocks that fit the format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch

from forq.checkpoints import Checkpoint
from forq.errors import ConfigError, FormatError
from forq.formats.codecs.gptq_words import multiple
from forq.models.skeleton import base, blocks, sizes, skeleton, turned

_NAMED = 4


@dataclass(frozen=True, slots=True)
class Linear:
    """The matrix of one linear layer.

    Attributes:
        rows, columns: number of outputs and inputs.
        turned: whether the file stores it transposed, as (in, out).
    """

    rows: int
    columns: int
    turned: bool


def linear_layers(ckpt: Checkpoint) -> dict[str, Linear]:
    """The linear layers of the blocks, by the names of their weights.

    Raises:
        FormatError: there is no linear layer, or the weight of one is not a matrix.
    """
    model = skeleton(ckpt.config, torch.float32)
    inside = {name: model.get_submodule(name) for name in blocks(model)}
    linear = {name: turned(module) for name, module in inside.items() if sizes(module) is not None}
    layers = {}
    for name, info in ckpt.info.items():
        module = name.removesuffix(".weight")
        place = module if module in linear else base(model) + module
        if not name.endswith(".weight") or place not in linear:
            continue
        if len(info.shape) != 2:
            raise FormatError(f"{name}: expected a matrix, found shape {info.shape}")
        rows, columns = info.shape[::-1] if linear[place] else info.shape
        layers[name] = Linear(rows, columns, linear[place])
    if not layers:
        raise FormatError(f"{ckpt.path}: expected linear layers in the blocks, found none")
    return layers


def kept_layers(layers: Iterable[str], keep: Sequence[str]) -> tuple[str, ...]:
    """Names of the weights that the user wants to keep in float.

    Args:
        keep: layer names, or the last parts of layer names; ``*`` matches any letters.

    Raises:
        ConfigError: a name matches no layer.
    """
    modules = {name.removesuffix(".weight"): name for name in layers}
    kept: dict[str, str] = {}
    for pattern in keep:
        matches = {
            module: name
            for module, name in modules.items()
            if fnmatchcase(module, pattern) or fnmatchcase(module, f"*.{pattern}")
        }
        if not matches:
            ends = sorted({module.rpartition(".")[2] for module in modules})
            raise ConfigError(f"keep: expected the name of a layer, or its end ({', '.join(ends)}), found {pattern!r}")
        kept |= matches
    return tuple(kept.values())


def gptq_misfit(layer: Linear, bits: int, group_size: int) -> str:
    """Why GPTQ cannot hold a layer; "" if it can."""
    step = multiple(bits)
    if layer.rows % step or layer.columns % step:
        return (
            f"expected inputs and outputs in multiples of {step}, as GPTQ's words hold them at {bits} bits, found "
            f"{layer.columns} inputs and {layer.rows} outputs"
        )
    if group_size != -1 and layer.columns % group_size:
        return (
            f"expected a group_size that divides its {layer.columns} inputs, found {group_size}: choose a divisor, or "
            "-1 for one scale a row"
        )
    return ""


def levels_misfit(layer: Linear) -> str:
    """Why forq could not read back a layer in NF4 or FP4; "" if it could."""
    if layer.columns % 2:
        return f"expected an even number of inputs, since a byte holds two codes of a row, found {layer.columns}"
    return ""


def check_fit(layers: Mapping[str, Linear], misfits: Mapping[str, str]) -> None:
    """Refuse layers that do not fit the format, and suggest how to keep them in float.

    Args:
        misfits: reason why a layer does not fit, by its name; "" if it fits.

    Raises:
        ConfigError: a layer does not fit.
    """
    unfit = [name for name in layers if misfits[name]]
    if not unfit:
        return
    ends = sorted({name.removesuffix(".weight").rpartition(".")[2] for name in unfit})
    alike = {name for name in layers if name.removesuffix(".weight").rpartition(".")[2] in ends}
    names = ends if alike == set(unfit) else [name.removesuffix(".weight") for name in unfit]
    keep = " ".join(f"--keep {name}" for name in names[:_NAMED]) + (" …" if len(names) > _NAMED else "")
    many = f" (and {len(unfit) - 1} more layers)" if len(unfit) > 1 else ""
    raise ConfigError(f"{unfit[0]}: {misfits[unfit[0]]}{many}; to leave such layers in float: {keep}")
