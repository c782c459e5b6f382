"""Add LoRA adapters to a loaded model: choose the layers, begin the factors, attach them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from forq.errors import ConfigError
from forq.layers.dense import DenseLinear
from forq.layers.embedding import QuantEmbedding
from forq.layers.linear import QuantLinear
from forq.layers.lora import Adapter, GridFactor, begin
from forq.models.adapters.peft_config import Config, beginning
from forq.models.loaded import LoadedModel
from forq.models.skeleton import sizes
from forq.plugins import registry

# Names of the query and value projections in all families, merged or separate; they agree with PEFT's defaults.
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
    """Add LoRA adapters to layers of a loaded model; its loss does not change, bit for bit.

    Args:
        model: a model from :func:`forq.load`. It is changed: its ``adapters`` hold the new ones.
        config: a ``peft.LoraConfig``, in place of rank, alpha and targets.
        rank, alpha: LoRA rank and alpha (arXiv 2106.09685); the adapter's output is scaled by
            alpha / rank.
        targets: ``all-linear`` (all linear layers except the output head), ``qv`` (queries and
            values, by any family's names), or ends of layer names as in PEFT's ``target_modules``:
            ``q_proj``, ``self_attn.v_proj``.
        bits: bits of an integer grid for both factors, 2 … 8; ``None`` keeps them in float32.
        seed: seed of the random factor A.

    Returns:
        Names of the layers with an adapter.

    Raises:
        ConfigError: a setting is impossible, a target matches no linear layer (the message lists
            the layers), the model has adapters already, or it is an ONNX graph.
    """
    check_free(model)
    if config is not None:
        chosen = beginning(config)
        rank, alpha, targets = chosen.rank, chosen.alpha, chosen.targets
    adapters = new_adapters(model, rank=rank, alpha=alpha, targets=targets, bits=bits, seed=seed)
    attach(model, adapters)
    return tuple(adapter.module for adapter in adapters)


def check_free(model: LoadedModel) -> None:
    """Refuse a model that takes no adapter or has some.

    Raises:
        ConfigError: it is so.
    """
    if not model.takes_adapters:
        raise ConfigError("an ONNX model takes no adapter, since its graph is fixed; move its scales instead")
    if adapted(model):
        raise ConfigError("this model carries adapters already; load the base again to add others")


def new_adapters(
    model: nn.Module, *, rank: int, alpha: float, targets: str | Sequence[str], bits: int | None, seed: int
) -> list[Adapter]:
    """The initial adapters of :func:`add_lora`; the model need not have weights."""
    if rank < 1 or not (alpha > 0 and math.isfinite(alpha)):
        raise ConfigError(f"lora: expected a rank of at least 1 and a positive alpha, found {rank} and {alpha}")
    if bits is not None and not 2 <= bits <= 8:
        raise ConfigError(f"bits: expected 2 … 8 for the grid of an adapter, found {bits}")
    chosen = matching(model, (targets,) if isinstance(targets, str) else tuple(targets))
    return [
        begin(name, inputs, outputs, rank=rank, alpha=alpha, bits=bits, seed=seed)
        for name, (outputs, inputs) in chosen.items()
    ]


def initial_factors(
    model: nn.Module, *, rank: int, alpha: float, targets: str | Sequence[str], bits: int | None, seed: int
) -> dict[str, Tensor]:
    """The initial factors of :func:`add_lora`, by name, as an export holds them."""
    return factors_of(new_adapters(model, rank=rank, alpha=alpha, targets=targets, bits=bits, seed=seed))


def factors_of(adapters: Sequence[Adapter]) -> dict[str, Tensor]:
    """The factors of adapters, by name, as an export holds them."""
    factors = (factor for adapter in adapters for factor in adapter)
    return {factor.name: factor.storage if isinstance(factor, GridFactor) else factor.tensor for factor in factors}


def attach(model: LoadedModel, adapters: Sequence[Adapter]) -> None:
    """Attach adapters to their layers, on the model's device."""
    model.adapters = [adapter.to(model.device) for adapter in adapters]
    for adapter in model.adapters:
        # A hook rather than a wrapper module, so that no name in the model changes.
        model.get_submodule(adapter.module).register_forward_hook(adapter.hook)


def matching(model: nn.Module, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The layers that match the targets, by name, as (out, in).

    Raises:
        ConfigError: a target matches no layer; the message lists the possible names.
    """
    layers = linears(model)
    head = getattr(model, "get_output_embeddings", lambda: None)()
    inner = {name: size for name, size in layers.items() if model.get_submodule(name) is not head}
    if tuple(targets) == ("all-linear",):
        return inner
    if tuple(targets) == ("qv",):
        known = [ends for ends in _QUERIES_AND_VALUES if all(_ends(layers, end) for end in ends)]
        if not known:
            raise ConfigError(
                f"lora.targets: expected layers known as queries and values, found none; {_possible(layers)}"
            )
        targets = known[0]
    matched: set[str] = set()
    for target in targets:
        matches = _ends(layers, target)
        if not matches:
            ends = sorted({name.rpartition(".")[2] for name in layers})
            raise ConfigError(
                f"lora.targets: no linear layer is called {target!r}{registry.nearest(target, ends)}; "
                f"{_possible(layers)}"
            )
        matched |= matches
    return {name: size for name, size in layers.items() if name in matched}


def linears(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Every linear layer of a loaded model, quantized or not, as (out, in)."""
    layers = {}
    lookups = {f"{name}.table" for name, module in model.named_modules() if isinstance(module, QuantEmbedding)}
    for name, module in model.named_modules(remove_duplicate=False):
        if name in lookups:
            continue  # rows are looked up there, and no output is computed; a head tied to it has a name of its own
        if isinstance(module, QuantLinear | DenseLinear):
            layers[name] = (module.out_features, module.in_features)
        elif (size := sizes(module)) is not None:
            layers[name] = size
    return layers


def adapted(model: LoadedModel) -> frozenset[str]:
    """Names of the layers that carry an adapter."""
    return frozenset(adapter.module for adapter in model.adapters)


def _ends(layers: dict[str, tuple[int, int]], target: str) -> set[str]:
    return {name for name in layers if name == target or name.endswith(f".{target}")}


def _possible(layers: dict[str, tuple[int, int]]) -> str:
    ends = sorted({name.rpartition(".")[2] for name in layers})
    return f"the linear layers are: {', '.join(ends)}; or give all-linear, or qv"
