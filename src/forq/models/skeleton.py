"""The model without its weights: transformers' architecture on the meta device, from a config alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from forq.core import FormatError

# What says how to read the files or which remote code to run, not what the architecture is.
_NOT_ARCHITECTURE = ("quantization_config", "auto_map", "torch_dtype", "dtype")


def skeleton(config: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """A causal language model whose every tensor is on the meta device; remote code is never run.

    Args:
        config: a config.json of a known family.
        dtype: of the parameters to come.

    Raises:
        FormatError: transformers refuses the configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    plain = {key: value for key, value in config.items() if key not in _NOT_ARCHITECTURE}
    try:
        settings = type(AutoConfig.for_model(plain["model_type"])).from_dict(plain)
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(settings, dtype=dtype, trust_remote_code=False)
    except Exception as error:  # whatever an impossible value ends in, somewhere inside transformers or torch
        raise FormatError(f"config.json: expected a configuration transformers can build, found {error}") from error
    return model


def rebuild_computed(model: nn.Module, device: torch.device) -> None:
    """Make the modules that hold computed buffers (rotary frequencies) anew, on the real device.

    Such buffers stand in no file, so a model born on the meta device has no values for them.

    Raises:
        FormatError: a module computes buffers and cannot be made from the configuration alone.
    """
    for name, module in list(model.named_modules()):
        if not module._non_persistent_buffers_set:
            continue
        if any(True for _ in module.parameters()):
            raise FormatError(f"{name}: expected computed buffers in a module of their own, found parameters too")
        # Computed on the CPU and then moved: another device's pow and sin may differ in the last bit.
        with torch.device("cpu"):
            fresh = type(module)(config=model.config)
        put(model, name, fresh.to(device))


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Set the sub-module called ``name``."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
