"""The pipeline of diffusers around a loaded denoiser: its other components, and drawing with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from forq.checkpoints.checkpoint import read_json
from forq.checkpoints.containers.pipeline import INDEX
from forq.errors import ConfigError, FormatError
from forq.models.diffusion.denoiser import library
from forq.models.load import load
from forq.models.loaded import LoadedModel

_OPTIONAL = ("text_encoder_3", "tokenizer_3")
"""T5 and its tokenizer: Stable Diffusion 3 works without, and its pipeline wants to be told so."""


class VaeConfig(Protocol):
    """How a VAE's latents are scaled for the denoiser."""

    @property
    def scaling_factor(self) -> float: ...
    @property
    def shift_factor(self) -> float | None: ...


class Encoded(Protocol):
    """What a VAE makes of pictures."""

    @property
    def mean(self) -> Tensor: ...


class Encoding(Protocol):
    """A VAE's posterior."""

    @property
    def latent_dist(self) -> Encoded: ...


class Vae(Protocol):
    """diffusers' ``AutoencoderKL``."""

    @property
    def config(self) -> VaeConfig: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def encode(self, pixels: Tensor) -> Encoding: ...
    def decode(self, latents: Tensor, *, return_dict: bool) -> tuple[Tensor, ...]: ...


def given(folder: Path, device: torch.device) -> dict[str, object]:
    """The components diffusers is to be handed: ``None`` for one the pipeline leaves out, and a quantized T5, loaded.

    diffusers itself would ask bitsandbytes for a quantized one, and bitsandbytes for a GPU.

    Raises:
        FormatError: the quantized text encoder is damaged, or of a format or class that is not read.
    """
    index = read_json(folder / INDEX)
    found: dict[str, object] = {name: None for name in _OPTIONAL if (index.get(name) or [None])[0] is None}
    config = folder / "text_encoder_3" / "config.json"
    if "text_encoder_3" not in found and config.is_file() and "quantization_config" in read_json(config):
        found["text_encoder_3"] = load(config.parent, device)
    return found


def drawing(model: LoadedModel) -> Any:
    """The pipeline a loaded denoiser came from, with that denoiser in it; in its dtype, on its device.

    Raises:
        FormatError: diffusers refuses one of the other components.
    """
    ckpt = model.checkpoint
    made, others = library().StableDiffusion3Pipeline, given(ckpt.folder, model.device)
    try:
        found = made.from_pretrained(ckpt.folder, transformer=model, dtype=model.dtype, **others)
    except Exception as error:  # whatever a damaged component ends in
        raise FormatError(f"{ckpt.folder}: expected a pipeline diffusers can load, found {error}") from error
    found.set_progress_bar_config(disable=True)
    for name in ("vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
        component = getattr(found, name, None)
        if component is not None and name not in others:
            component.to(model.device)
    return found


def draw(
    model: LoadedModel, prompt: str, seed: int, steps: int, guidance: float, resolution: int, text_tokens: int
) -> Image.Image:
    """One picture, by diffusers' own pipeline around a loaded denoiser; the same noise for the same seed on any device.

    Raises:
        ConfigError: a model that is no diffusion pipeline, or a setting diffusers refuses.
    """
    if model.checkpoint.contents.component is None:
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
    drawn: Image.Image = found.images[0]
    return drawn


def pictures(vae: Vae, latents: Tensor) -> Tensor:
    """Latents as the denoiser sees them, to pixels in [0, 1]: (n, c, h, w) → (n, 3, H, W)."""
    plain = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    pixels = vae.decode(plain.to(vae.dtype), return_dict=False)[0]
    return (pixels.float() / 2 + 0.5).clamp(0, 1)
