"""Adapters on a loaded model: which layers carry one, and the model that shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from forq.errors import ConfigError
from forq.layers.dense import DenseLinear
from forq.layers.linear import QuantLinear
from forq.layers.lora import Adapter, GridFactor, begin
from forq.models.adapters.peft_config import Config, beginning
from forq.models.loaded import LoadedModel
from forq.models.skeleton import sizes
from forq.plugins import registry

# What families call their queries and values, in one projection or apart; PEFT's own defaults name the same.
_QUERIES_AND_VALUES = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q_lin", "v_lin"),
    ("c_attn",),
    ("qkv_proj",),
    ("query_key_value",),
    ("Wqkv",),
)


def add_lora(
    model: LoadedModel,
    config: Config | None = None,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    targets: str | Sequence[str] = "all-linear",
    bits: int | None = None,
    seed: int = 0,
) -> tuple[str, ...]:
    """Lay a LoRA adapter beside layers of a loaded model; its loss stays what it was, bit for bit.

    Args:
        model: from :func:`forq.load`; it is changed, and has ``adapters`` from then on.
        config: a ``peft.LoraConfig``; takes the place of rank, alpha and targets.
        rank, alpha: r and α of arXiv 2106.09685: the product of the factors counts α/r times.
        targets: ``all-linear`` (but the output head), ``qv`` (queries and values, whatever the family calls them), or
            ends of names as PEFT's ``target_modules`` takes them: ``q_proj``, ``self_attn.v_proj``.
        bits: of an integer grid for both factors, 2 … 8; ``None``: float32.
        seed: A begins at random.

    Returns:
        Names of the layers.

    Raises:
        ConfigError: a setting cannot be, a target matches no linear layer (those there are get listed), the model
            has adapters already, or is an ONNX graph.
    """
    if not model.takes_adapters:
        raise ConfigError("an ONNX model takes no adapter: its graph is fixed; let its scales move")
    if adapted(model):
        raise ConfigError("this model carries adapters already; load the base anew to begin others")
    if config is not None:
        chosen = beginning(config)
        rank, alpha, targets = chosen.rank, chosen.alpha, chosen.targets
    made = begun(model, rank=rank, alpha=alpha, targets=targets, bits=bits, seed=seed)
    attach(model, made)
    return tuple(adapter.module for adapter in made)


def begun(
    model: nn.Module, *, rank: int, alpha: float, targets: str | Sequence[str], bits: int | None, seed: int
) -> list[Adapter]:
    """The adapters :func:`add_lora` begins; the model may be without weights."""
    if rank < 1 or not (alpha > 0 and math.isfinite(alpha)):
        raise ConfigError(f"lora: expected a rank of at least 1 and a positive alpha, found {rank} and {alpha}")
    if bits is not None and not 2 <= bits <= 8:
        raise ConfigError(f"--bits: expected 2 … 8 for the grid of an adapter, found {bits}")
    chosen = matching(model, (targets,) if isinstance(targets, str) else tuple(targets))
    return [
        begin(name, inputs, outputs, rank=rank, alpha=alpha, bits=bits, seed=seed)
        for name, (outputs, inputs) in chosen.items()
    ]


def starts(
    model: nn.Module, *, rank: int, alpha: float, targets: str | Sequence[str], bits: int | None, seed: int
) -> dict[str, Tensor]:
    """The factors :func:`add_lora` begins, by name, as an export holds them."""
    made = (
        factor
        for adapter in begun(model, rank=rank, alpha=alpha, targets=targets, bits=bits, seed=seed)
        for factor in adapter
    )
    return {factor.name: factor.storage if isinstance(factor, GridFactor) else factor.tensor for factor in made}


def attach(model: LoadedModel, adapters: Sequence[Adapter]) -> None:
    """Let layers show their adapters, on the model's device."""
    model.adapters = [adapter.to(model.device) for adapter in adapters]
    for adapter in model.adapters:
        # A hook, not another module around the layer: no name of the model changes.
        model.get_submodule(adapter.module).register_forward_hook(adapter.hook)


def matching(model: nn.Module, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The layers that targets mean, by name, as (out, in).

    Raises:
        ConfigError: a target matches none; what could be matched is listed.
    """
    layers = linears(model)
    head = getattr(model, "get_output_embeddings", lambda: None)()
    inner = {name: size for name, size in layers.items() if model.get_submodule(name) is not head}
    if tuple(targets) == ("all-linear",):
        return inner
    if tuple(targets) == ("qv",):
        known = [set_ for set_ in _QUERIES_AND_VALUES if all(_ends(layers, one) for one in set_)]
        if not known:
            raise ConfigError(f"lora.targets: found no layers that are known as queries and values; {_could(layers)}")
        targets = known[0]
    found: set[str] = set()
    for target in targets:
        mine = _ends(layers, target)
        if not mine:
            ends = sorted({name.rpartition(".")[2] for name in layers})
            raise ConfigError(
                f"lora.targets: no linear layer is called {target!r}{registry.nearest(target, ends)}; {_could(layers)}"
            )
        found |= mine
    return {name: size for name, size in layers.items() if name in found}


def linears(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Every linear layer of a loaded model as (out, in), quantized or not."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear | DenseLinear):
            found[name] = (module.out_features, module.in_features)
        elif (size := sizes(module)) is not None:
            found[name] = size
    return found


def adapted(model: LoadedModel) -> frozenset[str]:
    """Names of the layers that carry an adapter."""
    return frozenset(adapter.module for adapter in model.adapters)


def _ends(layers: dict[str, tuple[int, int]], target: str) -> set[str]:
    return {name for name in layers if name == target or name.endswith(f".{target}")}


def _could(layers: dict[str, tuple[int, int]]) -> str:
    ends = sorted({name.rpartition(".")[2] for name in layers})
    return f"the linear layers here are: {', '.join(ends)}; or give all-linear, or qv"
