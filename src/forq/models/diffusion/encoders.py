"""Encode pictures and captions with a pipeline's frozen components, once, into a cache on disk.

    CACHE/latents-<VAE's digest, resolution>/<digest of the file>.safetensors    latent: mean of the VAE's posterior
    CACHE/texts-<encoders' digest, tokens>/<digest of the caption>.safetensors   text, pooled

Only the VAE or the text encoders are in memory at a time, with a single picture or caption. A file
appears whole or not at all, so that an interrupted filling can go on. Every file names the digest
of the components that made it; a file with another digest is refused.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from forq.checkpoints import Checkpoint
from forq.checkpoints.json_file import read_json
from forq.checkpoints.patch import files_of
from forq.errors import ConfigError, FormatError
from forq.models.diffusion.captions import cut
from forq.models.diffusion.denoiser import library, skeleton
from forq.models.diffusion.pipeline import Vae, given, pictures
from forq.models.diffusion.scheduler import scheduler as scheduler_of
from forq.models.diffusion.scheduler import shift_of
from forq.tokens.model import Denoiser

log = logging.getLogger("forq")

_TEXT = ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
_CHUNK = 1 << 22


class Shown(Protocol):
    """A picture of :mod:`forq.tasks.images.pictures`."""

    @property
    def path(self) -> Path: ...
    @property
    def caption(self) -> str: ...
    @property
    def digest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Places:
    """Folders of the cached files, and the digests that the files must name."""

    latents: Path
    texts: Path
    vae: str
    text: str


class Encoders:
    """The frozen components of a pipeline; call :meth:`prepare` first.

    Attributes:
        shift: the scheduler's shift of the noise levels.
        channels: number of channels of a latent.

    Args:
        ckpt: a pipeline.
        cache: folder of the files; by default ``forq/diffusion`` in the user's cache folder.
        device: device that encodes pictures and captions.
        pixels: reads a picture from its path and side, as float32 (3, side, side), −1 … 1.

    Raises:
        FormatError: a component is missing or damaged, or the scheduler's noise levels follow another law.
    """

    def __init__(
        self, ckpt: Checkpoint, cache: Path | None, device: torch.device, pixels: Callable[[Path, int], Tensor]
    ) -> None:
        self._ckpt, self._folder, self._device, self._pixels = ckpt, ckpt.folder, device, pixels
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._cache = home / "forq" / "diffusion" if cache is None else cache
        self.shift, vae = shift_of(self._folder), self._config("vae/config.json")
        self.channels = int(ckpt.config.get("in_channels", 16))
        self._patch = int(ckpt.config.get("patch_size", 2))
        self._positions = ckpt.config.get("pos_embed_max_size")
        self._scale = 2 ** (len(vae.get("block_out_channels", (1, 1, 1, 1))) - 1)
        self._places: _Places | None = None
        self._read_text = lru_cache(maxsize=256)(self._text)

    @property
    def digest(self) -> str:
        """Digest of the components that made the cache, and of their settings."""
        places = self._there
        return hashlib.sha256(f"{places.vae} {places.text}".encode()).hexdigest()

    @property
    def _there(self) -> _Places:
        if self._places is None:
            raise ConfigError("expected a prepared cache, found none; call prepare() first")
        return self._places

    def prepare(self, pictures: Sequence[Shown], resolution: int, text_tokens: int) -> None:
        """Encode the pictures and captions that the cache lacks, and the empty caption.

        Raises:
            ConfigError: the resolution is not a multiple of the VAE's and patches' size, or exceeds
                the model's positions.
            DataError: a picture cannot be read; pictures encoded before it stay in the cache.
        """
        unit = self._scale * self._patch
        if resolution < unit or resolution % unit:
            near = max(unit, round(resolution / unit) * unit)
            raise ConfigError(
                f"resolution: expected a multiple of {unit} (VAE and patches), found {resolution}; take {near}"
            )
        if self._positions and resolution > unit * self._positions:
            most = unit * self._positions
            raise ConfigError(
                f"resolution: expected at most {most}, the limit of the model's positions, found {resolution}"
            )
        vae = self._digest_of(("vae",), f"resolution {resolution}")
        text = self._digest_of(_TEXT, f"tokens {text_tokens}")
        self._places = _Places(self._cache / f"latents-{vae[:16]}", self._cache / f"texts-{text[:16]}", vae, text)
        missing = [picture for picture in pictures if not self._latent_file(picture).is_file()]
        if missing:
            self._encode_pictures(missing, resolution)
        wanted = dict.fromkeys(["", *(picture.caption for picture in pictures)])
        captions = [caption for caption in wanted if not self._text_file(caption).is_file()]
        if captions:
            self._encode_captions(captions, text_tokens)
        if missing or captions:  # the encoders are large, and reference cycles may keep them alive
            gc.collect()

    def latent(self, picture: Shown) -> Tensor:
        """x₀ of a picture, float32 (c, h, w)."""
        return _read(self._latent_file(picture), self._there.vae)["latent"].float()

    def text(self, caption: str) -> tuple[Tensor, Tensor]:
        """Embeddings of a caption, (tokens, width), and pooled (width,)."""
        embeddings: tuple[Tensor, Tensor] = self._read_text(caption)
        return embeddings

    def draw(self, model: nn.Module, captions: Sequence[str], seed: int, steps: int, size: int) -> Tensor:
        """Draw pictures for cached captions, from noise of a seed: pixels 0 … 1, (n, 3, size, size)."""
        denoiser = cast(Denoiser, model)
        device, dtype = denoiser.device, denoiser.dtype
        scheduler = scheduler_of(self._folder)
        texts, pooled = (torch.stack(part).to(device, dtype) for part in zip(*map(self.text, captions), strict=True))
        side = size // self._scale
        noise = [
            torch.randn(self.channels, side, side, generator=torch.Generator().manual_seed(seed + n))
            for n in range(len(captions))
        ]
        x = torch.stack(noise).to(device)
        scheduler.set_timesteps(steps, device=device)
        with torch.inference_mode():
            for t in scheduler.timesteps:
                out = denoiser(x.to(dtype), texts, pooled, t.expand(len(x)), return_dict=False)[0].float()
                x = scheduler.step(out, t, x, return_dict=False)[0]
            vae = self._vae(device)
            return torch.cat([pictures(vae, latent[None]).cpu() for latent in x])

    def _vae(self, device: torch.device) -> Vae:
        try:
            vae: Vae = library().AutoencoderKL.from_pretrained(self._folder / "vae").eval().to(device)
            return vae
        except Exception as error:  # a damaged component can fail in any way
            raise FormatError(f"{self._folder / 'vae'}: expected a VAE diffusers can load, found {error}") from error

    def _encode_pictures(self, missing: Sequence[Shown], resolution: int) -> None:
        vae = self._vae(self._device)
        shift, scale = vae.config.shift_factor or 0.0, vae.config.scaling_factor
        for picture in missing:
            pixels = self._pixels(picture.path, resolution)[None].to(self._device, vae.dtype)
            with torch.inference_mode():
                mean = vae.encode(pixels).latent_dist.mean.float()
            write_cache(self._latent_file(picture), {"latent": ((mean - shift) * scale)[0].cpu()}, self._there.vae)

    def _encode_captions(self, missing: Sequence[str], tokens: int) -> None:
        maker = library().StableDiffusion3Pipeline
        dtype = torch.float32 if self._device.type == "cpu" else torch.float16
        others = given(self._folder, self._device)
        try:
            # diffusers reads a width from the transformer, which needs no weights for that.
            empty = skeleton(self._ckpt.config, dtype)
            pipe = maker.from_pretrained(self._folder, dtype=dtype, transformer=empty, vae=None, **others)
        except Exception as error:  # a damaged component can fail in any way
            raise FormatError(f"{self._folder}: expected text encoders diffusers can load, found {error}") from error
        for sentence in cut(pipe, missing, tokens):
            log.warning("%s", sentence)
        for name in _TEXT[:3]:
            if getattr(pipe, name) is not None and name not in others:
                getattr(pipe, name).to(self._device)
        for caption in missing:
            with torch.inference_mode():
                text, _, pooled, _ = pipe.encode_prompt(
                    caption,
                    None,
                    None,
                    device=self._device,
                    do_classifier_free_guidance=False,
                    max_sequence_length=tokens,
                )
            write_cache(self._text_file(caption), {"text": text[0].cpu(), "pooled": pooled[0].cpu()}, self._there.text)

    def _text(self, caption: str) -> tuple[Tensor, Tensor]:
        tensors = _read(self._text_file(caption), self._there.text)
        return tensors["text"], tensors["pooled"]

    def _latent_file(self, picture: Shown) -> Path:
        return self._there.latents / f"{picture.digest}.safetensors"

    def _text_file(self, caption: str) -> Path:
        return self._there.texts / f"{hashlib.sha256(caption.encode()).hexdigest()}.safetensors"

    def _config(self, name: str) -> dict[str, Any]:
        if not (self._folder / name).is_file():
            raise FormatError(f"{self._folder}: expected {name} of a pipeline, found none; download the whole pipeline")
        return read_json(self._folder / name)

    def _digest_of(self, parts: Sequence[str], setting: str) -> str:
        """Digest of the components' files and a setting; digests of files are cached by path, size and time."""
        known_at = self._cache / "digests.json"
        known: dict[str, str] = read_json(known_at) if known_at.is_file() else {}
        state, fresh = hashlib.sha256(setting.encode()), False
        for part in parts:
            for name in files_of(self._folder / part) if (self._folder / part).is_dir() else ():
                path = (self._folder / part / name).resolve()
                stat = path.stat()
                key = f"{path} {stat.st_size} {stat.st_mtime_ns}"
                if key not in known:
                    known[key], fresh = _hash(path), True
                state.update(f"{part}/{name} {known[key]}".encode())
        if fresh:
            self._cache.mkdir(parents=True, exist_ok=True)
            new = known_at.with_suffix(f".{os.getpid()}.new")
            new.write_text(json.dumps(known, indent=1), encoding="utf-8")
            new.replace(known_at)
        return state.hexdigest()


def _hash(path: Path) -> str:
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def write_cache(path: Path, tensors: dict[str, Tensor], model: str) -> None:
    """Write a cached file, whole or not at all.

    Args:
        model: digest of the components that made the tensors; the file names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}.new")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new, metadata={"model": model})
    new.replace(path)


def _read(path: Path, model: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            owner = (file.metadata() or {}).get("model")
            if owner != model:
                raise FormatError(
                    f"{path}: expected the cache of a model with digest {model[:16]}, found {str(owner)[:16]}; "
                    "remove the file to make it again"
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FormatError(f"{path}: expected a complete cache file, found {error}; remove it") from error
