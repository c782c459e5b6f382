"""The denoiser of a diffusers pipeline, without its weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import nn

from forq.errors import ConfigError, FormatError


class DenoiserConfig(Protocol):
    """Widths of diffusers' ``SD3Transformer2DModel``."""

    @property
    def caption_projection_dim(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def attention_head_dim(self) -> int: ...


def library() -> Any:
    """The package diffusers, without its progress bars and log messages.

    Raises:
        ConfigError: diffusers is not installed.
    """
    # Pipelines load their text encoders with transformers, which has its own progress bars and messages.
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import diffusers
    except ImportError as error:
        raise ConfigError(f"a diffusion model needs diffusers: pip install 'forq[diffusion]' ({error})") from error
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    return diffusers


def skeleton(config: Mapping[str, object], dtype: torch.dtype) -> nn.Module:
    """The transformer of a config.json, every tensor on the meta device.

    Raises:
        FormatError: diffusers refuses the configuration.
        ConfigError: diffusers is not installed.
    """
    maker = getattr(library(), str(config["_class_name"]))
    plain = {key: value for key, value in config.items() if key != "quantization_config" and not key.startswith("_")}
    try:
        with torch.device("meta"):
            model: nn.Module = maker.from_config(plain).to(dtype)
    except Exception as error:  # an impossible value can fail in any way inside diffusers or torch
        raise FormatError(
            f"transformer/config.json: expected a configuration diffusers can build, found {error}"
        ) from error
    settings = cast(DenoiserConfig, model.config)
    if settings.caption_projection_dim != (width := settings.num_attention_heads * settings.attention_head_dim):
        raise FormatError(
            f"transformer/config.json: expected caption_projection_dim {width}, the width of its heads, "
            f"found {settings.caption_projection_dim}"
        )
    return model
