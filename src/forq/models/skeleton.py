"""The model without its weights: transformers' architecture on the meta device, from a config alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from forq.core import FormatError
from forq.models.families import family_of

# What says how to read the files or which remote code to run, not what the architecture is.
_NOT_ARCHITECTURE = ("quantization_config", "auto_map", "torch_dtype", "dtype")


def skeleton(config: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """The model of a configuration's family, every tensor on the meta device; remote code is never run.

    Args:
        config: a config.json of a known family.
        dtype: of the parameters to come.

    Raises:
        FormatError: transformers refuses the configuration.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

    maker = {"causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM, "encoder": AutoModel}[
        family_of(config).kind
    ]
    plain = {key: value for key, value in config.items() if key not in _NOT_ARCHITECTURE}
    try:
        settings = type(AutoConfig.for_model(plain["model_type"])).from_dict(plain)
        with torch.device("meta"):
            model: nn.Module = maker.from_config(settings, dtype=dtype, trust_remote_code=False)
    except Exception as error:  # whatever an impossible value ends in, somewhere inside transformers or torch
        raise FormatError(f"config.json: expected a configuration transformers can build, found {error}") from error
    if getattr(model, "pooler", None) is not None:
        put(model, "pooler", None)  # nothing here reads what it makes
    return model


def rebuild_computed(model: nn.Module, device: torch.device) -> None:
    """Make the modules that hold computed buffers (rotary frequencies) anew, on the real device.

    Such buffers stand in no file, so a model born on the meta device has no values for them. A module that has
    parameters too (an encoder's embeddings) keeps them, and its buffers are filled by their known laws.

    Raises:
        FormatError: a module with parameters has a computed buffer of no known law.
    """
    for name, module in list(model.named_modules()):
        if not module._non_persistent_buffers_set:
            continue
        if any(True for _ in module.parameters()):
            for own in module._non_persistent_buffers_set:
                module.register_buffer(own, _by_law(f"{name}.{own}", module, device), persistent=False)
            continue
        # Computed on the CPU and then moved: another device's pow and sin may differ in the last bit.
        with torch.device("cpu"):
            fresh = type(module)(config=model.config)
        put(model, name, fresh.to(device))


def _by_law(name: str, module: nn.Module, device: torch.device) -> Tensor:
    """Positions count from 0 in every row; without other word all tokens are of type 0; Gemma scales its embeddings."""
    meta = module.get_buffer(name.rpartition(".")[2])
    scale = getattr(module, "scalar_embed_scale", None)
    if name.endswith("embed_scale") and isinstance(scale, float):
        return torch.tensor(scale, dtype=meta.dtype, device=device)
    if name.endswith("position_ids"):
        return torch.arange(meta.shape[-1], dtype=meta.dtype, device=device).expand(meta.shape)
    if name.endswith("token_type_ids"):
        return torch.zeros(meta.shape, dtype=meta.dtype, device=device)
    raise FormatError(f"{name}: expected a computed buffer of a known law, found one in a module with parameters")


def sizes(module: nn.Module) -> tuple[int, int] | None:
    """(out, in) of a layer that can be quantized, or None; GPT-2's Conv1D is one, a linear layer stored turned."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if turned(module):
        return int(module.nf), int(module.nx)  # type: ignore[arg-type]
    return None


def turned(module: nn.Module) -> bool:
    """Whether a layer's float weight is stored as (in, out)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def put(model: nn.Module, name: str, module: nn.Module | None) -> None:
    """Set the sub-module called ``name``, or leave its place empty."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
