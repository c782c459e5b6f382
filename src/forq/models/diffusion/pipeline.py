"""The diffusers pipeline around a loaded denoiser: its other components, and drawing with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from forq.checkpoints.containers.pipeline import INDEX
from forq.checkpoints.json_file import read_json
from forq.errors import ConfigError, FormatError
from forq.models.diffusion.denoiser import library
from forq.models.load import load
from forq.models.loaded import LoadedModel

_OPTIONAL = ("text_encoder_3", "tokenizer_3")
"""T5 and its tokenizer. Stable Diffusion 3 works without them; its pipeline then expects ``None``."""


class VaeConfig(Protocol):
    """How a VAE's latents are scaled for the denoiser."""

    @property
    def scaling_factor(self) -> float: ...
    @property
    def shift_factor(self) -> float | None: ...


class Encoded(Protocol):
    """The distribution of a picture's latent."""

    @property
    def mean(self) -> Tensor: ...


class Encoding(Protocol):
    """The output of a VAE's encoder."""

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
    """Components to pass to diffusers: ``None`` for those the pipeline lacks, and a quantized T5.

    diffusers would load a quantized T5 with bitsandbytes, which needs a GPU.

    Raises:
        FormatError: the quantized text encoder is damaged, or of an unknown format or class.
    """
    index = read_json(folder / INDEX)
    components: dict[str, object] = {name: None for name in _OPTIONAL if (index.get(name) or [None])[0] is None}
    config = folder / "text_encoder_3" / "config.json"
    there = "text_encoder_3" not in components and config.is_file()
    if there and read_json(config).get("quantization_config") is not None:
        components["text_encoder_3"] = load(config.parent, device)
    return components


def drawing(model: LoadedModel) -> Any:
    """The pipeline of a loaded denoiser, with that denoiser in it, in its dtype and on its device.

    Raises:
        FormatError: diffusers refuses one of the other components.
    """
    ckpt = model.checkpoint
    maker, others = library().StableDiffusion3Pipeline, given(ckpt.folder, model.device)
    try:
        pipe = maker.from_pretrained(ckpt.folder, transformer=model, dtype=model.dtype, **others)
    except Exception as error:  # a damaged component can fail in any way
        raise FormatError(f"{ckpt.folder}: expected a pipeline diffusers can load, found {error}") from error
    pipe.set_progress_bar_config(disable=True)
    for name in ("vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
        component = getattr(pipe, name, None)
        if component is not None and name not in others:
            component.to(model.device)
    return pipe


def draw(
    model: LoadedModel, prompt: str, seed: int, steps: int, guidance: float, resolution: int, text_tokens: int
) -> Image.Image:
    """Draw a picture with diffusers' pipeline; the noise depends only on the seed, not on the device.

    Raises:
        ConfigError: the model is not a diffusion pipeline, or diffusers refuses a setting.
    """
    if model.checkpoint.contents.component is None:
        raise ConfigError(f"expected a diffusion pipeline to draw with, found {type(model).__name__}")
    try:
        output = drawing(model)(
            prompt,
            height=resolution,
            width=resolution,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=text_tokens,
            generator=torch.Generator().manual_seed(seed),
        )
    except ValueError as error:
        raise ConfigError(f"diffusers says: {error}") from error
    drawn: Image.Image = output.images[0]
    return drawn


def pictures(vae: Vae, latents: Tensor) -> Tensor:
    """Decode the denoiser's latents (n, c, h, w) to pixels in [0, 1], (n, 3, H, W)."""
    plain = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    pixels = vae.decode(plain.to(vae.dtype), return_dict=False)[0]
    return (pixels.float() / 2 + 0.5).clamp(0, 1)
