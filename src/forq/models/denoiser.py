"""The denoiser of a pipeline of diffusers, without its weights; and the pipeline around one, to draw with."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forq.core import ConfigError, FormatError
from forq.formats.checkpoint import Checkpoint
from forq.formats.checkpoint.folder import read_json
from forq.formats.checkpoint.pipeline import INDEX

_OPTIONAL = ("text_encoder_3", "tokenizer_3")
"""T5 and its tokenizer: Stable Diffusion 3 works without, and its pipeline wants to be told so."""


def library() -> Any:
    """diffusers, quiet.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import diffusers
    except ImportError as error:
        raise ConfigError(f"a diffusion model needs diffusers: pip install 'forq[diffusion]' ({error})") from error
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    return diffusers


def skeleton(config: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """The transformer a config.json describes, every tensor on the meta device.

    Raises:
        FormatError: diffusers refuses the configuration.
        ConfigError: diffusers is not installed.
    """
    made = getattr(library(), str(config["_class_name"]))
    plain = {key: value for key, value in config.items() if key != "quantization_config" and not key.startswith("_")}
    width = plain.get("num_attention_heads", 18) * plain.get("attention_head_dim", 64)
    if plain.get("caption_projection_dim", 1152) != width:
        raise FormatError(
            f"transformer/config.json: expected a caption_projection_dim of {width}, as its heads are wide"
        )
    try:
        with torch.device("meta"):
            model: nn.Module = made.from_config(plain).to(dtype)
    except Exception as error:  # whatever an impossible value ends in, somewhere inside diffusers or torch
        raise FormatError(f"transformer/config.json: expected one diffusers can build, found {error}") from error
    return model


def absent(folder: Path) -> dict[str, None]:
    """The components a pipeline may leave out and this one does, as diffusers wants to be told."""
    index = read_json(folder / INDEX)
    return {name: None for name in _OPTIONAL if (index.get(name) or [None])[0] is None}


def drawing(model: nn.Module) -> Any:
    """The pipeline a loaded denoiser came from, with that denoiser in it; in its dtype, on its device.

    Raises:
        FormatError: diffusers refuses one of the other components.
    """
    lm: Any = model
    ckpt: Checkpoint = lm.checkpoint
    made = library().StableDiffusion3Pipeline
    try:
        found = made.from_pretrained(ckpt.folder, transformer=model, dtype=lm.dtype, **absent(ckpt.folder))
    except Exception as error:  # whatever a damaged component ends in
        raise FormatError(f"{ckpt.folder}: expected a pipeline diffusers can load, found {error}") from error
    found.set_progress_bar_config(disable=True)
    for name in ("vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
        component = getattr(found, name, None)
        if component is not None:
            component.to(lm.device)
    return found


def draw(
    model: nn.Module, prompt: str, seed: int, steps: int, guidance: float, resolution: int, text_tokens: int
) -> Any:
    """One picture, by diffusers' own pipeline around a loaded denoiser; the same noise for the same seed on any device.

    Raises:
        ConfigError: a model that is no diffusion pipeline, or a setting diffusers refuses.
    """
    lm: Any = model
    if lm.checkpoint.contents.component is None:
        raise ConfigError(f"forq sample draws with diffusion pipelines, found {type(model).__name__}")
    try:
        found = drawing(model)(
            prompt,
            height=resolution,
            width=resolution,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=text_tokens,
            generator=torch.Generator().manual_seed(seed),
        )
    except ValueError as error:
        raise ConfigError(f"forq sample: diffusers says: {error}") from error
    drawn: Any = found.images[0]
    return drawn


def pictures(vae: Any, latents: Tensor) -> Tensor:
    """Latents as the denoiser sees them, to pixels in [0, 1]: (n, c, h, w) → (n, 3, H, W)."""
    plain = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    found: Tensor = vae.decode(plain.to(vae.dtype), return_dict=False)[0]
    return (found.float() / 2 + 0.5).clamp(0, 1)
