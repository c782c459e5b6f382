"""Noised latents, and the objectives of diffusion models: flow matching (Stable Diffusion 3), noise prediction (DDPM).

    flow        σ = shifted(sigmoid(N(0, 1)))     x_σ = (1 − σ)·x₀ + σ·ε           target ε − x₀
    epsilon     t uniform                          x_t = √ᾱ_t·x₀ + √(1 − ᾱ_t)·ε    target ε

Both are unweighted mean squared errors (Esser et al. 2024, arXiv 2403.03206; Ho et al. 2020,
arXiv 2006.11239). All randomness is a pure function of its key, so that both signs of a probe see the
same noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from forq.noise.bits import Bits
from forq.noise.law import law
from forq.tokens.forward import forward_of


@dataclass(frozen=True, slots=True, eq=False)
class Noised:
    """A batch for a diffusion model.

    Attributes:
        latents: x₀, float32 (n, c, h, w).
        noise: ε, with the shape of the latents.
        level: noise level σ of each row, float32 (n,), between 0 and 1; or its place t in the schedule.
        texts, pooled: caption embeddings, (n, tokens, width) and (n, width).
        most: maximum number of rows in one forward.
    """

    latents: Tensor
    noise: Tensor
    level: Tensor
    texts: Tensor
    pooled: Tensor
    most: int


def normal(bits: Bits, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers in float32, with the given shape."""
    out = np.empty(int(np.prod(shape)), np.float32)
    law("gaussian").draw(bits, 0, out)
    return torch.from_numpy(out).view(shape)


def uniform(bits: Bits, count: int) -> Tensor:
    """Uniform numbers in (0, 1): float64 (count,)."""
    return torch.from_numpy((bits.uniform32(0, count).astype(np.float64) + 0.5) * 2.0**-32)


def stratified(bits: Bits, count: int) -> Tensor:
    """One uniform number from each of ``count`` equal parts of (0, 1), in order: float64 (count,).

    A number from a randomly chosen part is uniform on (0, 1). The mean of all ``count`` numbers varies
    far less than that of independent numbers.
    """
    return (torch.arange(count, dtype=torch.float64) + uniform(bits, count)) / count


def sigmas(u: Tensor, shift: float = 1.0) -> Tensor:
    """Noise levels: the u-quantiles of sigmoid(N(0, 1)), shifted as the scheduler does."""
    sigma = torch.sigmoid(torch.special.ndtri(u))
    return (shift * sigma / (1 + (shift - 1) * sigma)).float()


def flow(
    model: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], batch: Noised, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Mean squared error of each row's predicted velocity, fp32 (n,), and the velocities, fp32 (n, c, h, w).

    Args:
        model: predicts the velocity from (x_σ, texts, pooled, σ).
    """
    found = []
    for start in range(0, len(batch.latents), batch.most):
        some = slice(start, start + batch.most)
        x0, noise = batch.latents[some].to(device), batch.noise[some].to(device)
        level = batch.level[some].to(device)
        sigma = level[:, None, None, None]
        x = ((1 - sigma) * x0 + sigma * noise).to(dtype)
        texts, pooled = (embedding[some].to(device, dtype) for embedding in (batch.texts, batch.pooled))
        with forward_of(range(start, start + len(x))):
            out = model(x, texts, pooled, level).float()
        found.append(((out - (noise - x0)).square().flatten(1).mean(dim=1), out))
    errors, outputs = (torch.cat(column) for column in zip(*found, strict=True))
    return errors, outputs


def epsilon(
    model: Callable[[Tensor, Tensor], Tensor], x0: Tensor, noise: Tensor, t: Tensor, alpha_bar: Tensor
) -> Tensor:
    """Mean squared error of each row's predicted noise, fp32 (n,).

    Args:
        model: predicts the noise from (x_t, t).
        t: timesteps, int64 (n,).
        alpha_bar: ᾱ for each timestep: the cumulative products of 1 − β.
    """
    kept = alpha_bar[t][:, None, None, None]
    out = model(kept.sqrt() * x0 + (1 - kept).sqrt() * noise, t).float()
    return (out - noise).square().flatten(1).mean(dim=1)
