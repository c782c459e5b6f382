"""How a model is loaded: device, dtype, kernel and activations, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

import torch

from forq.checkpoints import Checkpoint
from forq.devices import triton_for
from forq.errors import ConfigError, FormatError
from forq.layers.linear import Activations, Choice


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options of :func:`forq.load`, checked, with defaults filled in.

    Attributes:
        device: device of the model.
        dtype: dtype of activations and float weights.
        kernel: kernel of the quantized layers.
        activations: precision of the inputs of quantized layers.
    """

    device: torch.device
    dtype: torch.dtype
    kernel: Choice
    activations: Activations


def check_choices(kernel: str, activations: str, device: torch.device) -> None:
    """Refuse an unknown kernel or activations, and those that this device does not support.

    Raises:
        ConfigError: the message lists the possible values.
    """
    if kernel not in get_args(Choice):
        raise ConfigError(f"kernel: expected one of {', '.join(get_args(Choice))}, found {kernel!r}")
    if activations not in get_args(Activations):
        raise ConfigError(f"activations: expected one of {', '.join(get_args(Activations))}, found {activations!r}")
    if activations == "bfloat16" and device.type != "cpu":
        raise ConfigError(
            f"activations bfloat16: expected a CPU, found {device.type}, where a model computes in its own dtype; "
            "leave it at float"
        )
    if activations == "bfloat16" and kernel == "ort":
        raise ConfigError("activations bfloat16: expected another kernel than ort, which computes in float32")
    if kernel == "triton" and not triton_for(device.type):
        raise ConfigError(f"kernel triton: expected a GPU and the package triton, found {device.type}; take auto")


def choose_device(wanted: str | torch.device) -> torch.device:
    """The device a user names; ``auto`` is a GPU if there is one.

    Raises:
        ConfigError: the device is unknown, or this machine does not have it.
    """
    name = str(wanted)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = re.fullmatch(r"cpu|cuda(?::([0-9]{1,3}))?", name)
    if known is None:
        raise ConfigError(f"device: expected auto, cpu, cuda or cuda:N, found {name!r}")
    if name != "cpu":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise ConfigError(f"device: expected a GPU for {name!r}, found no GPU here; use --device cpu")
        if int(known[1] or 0) >= count:
            raise ConfigError(f"device: expected a GPU of this machine, cuda:0 … cuda:{count - 1}, found {name!r}")
    return torch.device(name)


def on_device(activations: Activations, device: str) -> Activations:
    """A setting of activations where a device can follow it: on a GPU a model computes in its own dtype."""
    return activations if choose_device(device).type == "cpu" else "float"


def default_dtype(ckpt: Checkpoint, device: torch.device) -> torch.dtype:
    """float32 on a CPU; on other devices the dtype in the configuration.

    Raises:
        FormatError: torch has no such dtype.
    """
    named = ckpt.config.get("dtype") or ckpt.config.get("torch_dtype") or "float16"
    dtype = getattr(torch, named.removeprefix("torch."), None) if isinstance(named, str) else None
    if not isinstance(dtype, torch.dtype):
        # Refused here: transformers reads the same field for the tokenizer and raises an AttributeError.
        raise FormatError(f"config.json: expected a dtype of torch, found {named!r}")
    if device.type == "cpu":
        return torch.float32
    return dtype if dtype in (torch.float16, torch.bfloat16, torch.float32) else torch.float16
