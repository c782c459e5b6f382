"""What a pipeline's frozen components make of pictures and captions, computed once and kept on disk.

    CACHE/latents-<VAE's digest, resolution>/<digest of the file>.safetensors    latent: mean of the VAE's posterior
    CACHE/texts-<encoders' digest, tokens>/<digest of the caption>.safetensors   text, pooled

The VAE and the text encoders are in memory one after the other, and one picture or caption at a time; a file appears
whole or not at all, so that a stopped filling goes on where it was. Every file names the digest of what made it, and
another's is refused.
"""

from __future__ import annotations

import gc
import hashlib
import json
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
from forq.checkpoints.checkpoint import read_json
from forq.checkpoints.patch import files_of
from forq.errors import ConfigError, FormatError
from forq.models.diffusion.denoiser import library, skeleton
from forq.models.diffusion.pipeline import Vae, given, pictures
from forq.tokens.model import Denoiser

_TEXT = ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
_CHUNK = 1 << 22


class Shown(Protocol):
    """A picture, as :mod:`forq.tasks.kinds.pictures` has it."""

    @property
    def path(self) -> Path: ...
    @property
    def caption(self) -> str: ...
    @property
    def digest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Places:
    """Where this filling's files are, and the digests they must name."""

    latents: Path
    texts: Path
    vae: str
    text: str


class Encoders:
    """The frozen side of a pipeline; :meth:`prepare` before anything else.

    Attributes:
        shift: of the noise levels, as the scheduler has it.
        channels: of a latent.

    Args:
        ckpt: a pipeline.
        cache: folder of the files; ``None``: ``forq/diffusion`` in the user's cache folder.
        device: where pictures and captions are encoded.
        pixels: reads a picture: path and side to float32 (3, side, side), −1 … 1.

    Raises:
        FormatError: a component is missing or damaged.
    """

    def __init__(
        self, ckpt: Checkpoint, cache: Path | None, device: torch.device, pixels: Callable[[Path, int], Tensor]
    ) -> None:
        self._ckpt, self._folder, self._device, self._pixels = ckpt, ckpt.folder, device, pixels
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._cache = home / "forq" / "diffusion" if cache is None else cache
        scheduler, vae = (self._config(name) for name in ("scheduler/scheduler_config.json", "vae/config.json"))
        self.shift = float(scheduler.get("shift", 1.0))
        self.channels = int(ckpt.config.get("in_channels", 16))
        self._patch = int(ckpt.config.get("patch_size", 2))
        self._positions = ckpt.config.get("pos_embed_max_size")
        self._scale = 2 ** (len(vae.get("block_out_channels", (1, 1, 1, 1))) - 1)
        self._places: _Places | None = None
        self._read_text = lru_cache(maxsize=256)(self._text)

    @property
    def digest(self) -> str:
        """Of the components that made the cache, and how they were asked."""
        places = self._there
        return hashlib.sha256(f"{places.vae} {places.text}".encode()).hexdigest()

    @property
    def _there(self) -> _Places:
        if self._places is None:
            raise ConfigError("prepare() first")
        return self._places

    def prepare(self, pictures: Sequence[Shown], resolution: int, text_tokens: int) -> None:
        """Fill the cache with what is missing in it; with the empty caption too.

        Raises:
            ConfigError: a resolution the VAE or the patches do not divide, or that has no positions.
            DataError: a picture cannot be read; what was encoded before it stays.
        """
        unit = self._scale * self._patch
        if resolution < unit or resolution % unit:
            near = max(unit, round(resolution / unit) * unit)
            raise ConfigError(
                f"--resolution: expected a multiple of {unit} (VAE and patches), found {resolution}; take {near}"
            )
        if self._positions and resolution > unit * self._positions:
            most = unit * self._positions
            raise ConfigError(
                f"--resolution: expected at most {most}, as the model has positions for, found {resolution}"
            )
        vae = self._digest_of(("vae",), f"resolution {resolution}")
        text = self._digest_of(_TEXT, f"tokens {text_tokens}")
        self._places = _Places(self._cache / f"latents-{vae[:16]}", self._cache / f"texts-{text[:16]}", vae, text)
        missing = [one for one in pictures if not self._latent_file(one).is_file()]
        if missing:
            self._encode_pictures(missing, resolution)
        captions = [
            one for one in dict.fromkeys(["", *(one.caption for one in pictures)]) if not self._text_file(one).is_file()
        ]
        if captions:
            self._encode_captions(captions, text_tokens)
        if missing or captions:  # what encoded them is large, and may hang in cycles
            gc.collect()

    def latent(self, picture: Shown) -> Tensor:
        """x₀ of a picture, float32 (c, h, w)."""
        return _read(self._latent_file(picture), self._there.vae)["latent"].float()

    def text(self, caption: str) -> tuple[Tensor, Tensor]:
        """Embeddings of a caption, (tokens, width), and pooled (width,)."""
        found: tuple[Tensor, Tensor] = self._read_text(caption)
        return found

    def draw(self, model: nn.Module, captions: Sequence[str], seed: int, steps: int, size: int) -> Tensor:
        """What a denoiser makes of noise of a seed, for captions in the cache: pixels 0 … 1, (n, 3, size, size)."""
        denoiser = cast(Denoiser, model)
        device, dtype = denoiser.device, denoiser.dtype
        scheduler = library().FlowMatchEulerDiscreteScheduler.from_pretrained(self._folder / "scheduler")
        texts, pooled = (
            torch.stack(found).to(device, dtype) for found in zip(*(self.text(one) for one in captions), strict=True)
        )
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
            return torch.cat([pictures(vae, one[None]).cpu() for one in x])

    def _vae(self, device: torch.device) -> Vae:
        try:
            vae: Vae = library().AutoencoderKL.from_pretrained(self._folder / "vae").eval().to(device)
            return vae
        except Exception as error:  # whatever a damaged component ends in
            raise FormatError(f"{self._folder / 'vae'}: expected a VAE diffusers can load, found {error}") from error

    def _encode_pictures(self, missing: Sequence[Shown], resolution: int) -> None:
        vae = self._vae(self._device)
        shift, scale = vae.config.shift_factor or 0.0, vae.config.scaling_factor
        for one in missing:
            pixels = self._pixels(one.path, resolution)[None].to(self._device, vae.dtype)
            with torch.inference_mode():
                mean = vae.encode(pixels).latent_dist.mean.float()
            _write(self._latent_file(one), {"latent": ((mean - shift) * scale)[0].cpu()}, self._there.vae)

    def _encode_captions(self, missing: Sequence[str], tokens: int) -> None:
        made = library().StableDiffusion3Pipeline
        dtype = torch.float32 if self._device.type == "cpu" else torch.float16
        others = given(self._folder, self._device)
        try:
            # diffusers asks the transformer for a width; one without weights knows it.
            empty = skeleton(self._ckpt.config, dtype)
            pipe = made.from_pretrained(self._folder, dtype=dtype, transformer=empty, vae=None, **others)
        except Exception as error:  # whatever a damaged component ends in
            raise FormatError(f"{self._folder}: expected text encoders diffusers can load, found {error}") from error
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
            _write(self._text_file(caption), {"text": text[0].cpu(), "pooled": pooled[0].cpu()}, self._there.text)

    def _text(self, caption: str) -> tuple[Tensor, Tensor]:
        held = _read(self._text_file(caption), self._there.text)
        return held["text"], held["pooled"]

    def _latent_file(self, one: Shown) -> Path:
        return self._there.latents / f"{one.digest}.safetensors"

    def _text_file(self, caption: str) -> Path:
        return self._there.texts / f"{hashlib.sha256(caption.encode()).hexdigest()}.safetensors"

    def _config(self, name: str) -> dict[str, Any]:
        if not (self._folder / name).is_file():
            raise FormatError(f"{self._folder}: expected {name} of a pipeline, found none; download it whole")
        return read_json(self._folder / name)

    def _digest_of(self, parts: Sequence[str], how: str) -> str:
        """Of the components' files; what was read of a large one once is remembered by its size and time."""
        known_at = self._cache / "digests.json"
        known: dict[str, str] = read_json(known_at) if known_at.is_file() else {}
        state, fresh = hashlib.sha256(how.encode()), False
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


def _write(path: Path, tensors: dict[str, Tensor], model: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}.new")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new, metadata={"model": model})
    new.replace(path)


def _read(path: Path, model: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get("model")
            if said != model:
                raise FormatError(
                    f"{path}: expected a cache of the model of digest {model[:16]}, found {str(said)[:16]}; remove it, "
                    "and it is made anew"
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FormatError(f"{path}: expected a whole file of the cache, found {error}; remove it") from error
