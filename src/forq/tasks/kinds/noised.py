"""Noised latents, and the objectives of diffusion models: flow matching (Stable Diffusion 3), noise prediction (DDPM).

    flow        σ = shifted(sigmoid(N(0, 1)))     x_σ = (1 − σ)·x₀ + σ·ε           target ε − x₀
    epsilon     t uniform                          x_t = √ᾱ_t·x₀ + √(1 − ᾱ_t)·ε    target ε

Both are means of squares without weights (Esser et al. 2024, arXiv 2403.03206; Ho et al. 2020, arXiv 2006.11239). All
randomness is a pure function of its key, so that both signs of a probe see the same noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from forq.noise.bits import Bits
from forq.noise.law import law


@dataclass(frozen=True, slots=True, eq=False)
class Noised:
    """A batch of a diffusion model.

    Attributes:
        latents: x₀, float32 (n, c, h, w).
        noise: ε, of the same shape.
        level: σ of every row in (0, 1), float32 (n,); or its place t in the schedule, 0 … 1.
        texts, pooled: embeddings of the captions, (n, tokens, width) and (n, width).
        most: rows of one forward.
    """

    latents: Tensor
    noise: Tensor
    level: Tensor
    texts: Tensor
    pooled: Tensor
    most: int


def normal(bits: Bits, shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 of a shape."""
    out = np.empty(int(np.prod(shape)), np.float32)
    law("gaussian").draw(bits, 0, out)
    return torch.from_numpy(out).view(shape)


def uniform(bits: Bits, count: int) -> Tensor:
    """float64 (count,) in (0, 1)."""
    return torch.from_numpy((bits.uniform32(0, count).astype(np.float64) + 0.5) * 2.0**-32)


def stratified(bits: Bits, count: int) -> Tensor:
    """float64 (count,): one point drawn in each of ``count`` equal parts of (0, 1), in order.

    Each alone, its part drawn at random, is uniform; their mean varies far less than that of independent ones.
    """
    return (torch.arange(count, dtype=torch.float64) + uniform(bits, count)) / count


def sigmas(u: Tensor, shift: float = 1.0) -> Tensor:
    """From uniform places to noise levels: the u-quantile of sigmoid(N(0, 1)), shifted as the scheduler shifts."""
    sigma = torch.sigmoid(torch.special.ndtri(u))
    return (shift * sigma / (1 + (shift - 1) * sigma)).float()


def flow(
    model: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], batch: Noised, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Mean squared error of every row, fp32 (n,).

    Args:
        model: from (x_σ, texts, pooled, σ) to the velocity.
    """
    found = []
    for start in range(0, len(batch.latents), batch.most):
        some = slice(start, start + batch.most)
        x0, noise = batch.latents[some].to(device), batch.noise[some].to(device)
        level = batch.level[some].to(device)
        sigma = level[:, None, None, None]
        x = ((1 - sigma) * x0 + sigma * noise).to(dtype)
        texts, pooled = (given[some].to(device, dtype) for given in (batch.texts, batch.pooled))
        out = model(x, texts, pooled, level).float()
        found.append((out - (noise - x0)).square().flatten(1).mean(dim=1))
    return torch.cat(found)


def epsilon(
    model: Callable[[Tensor, Tensor], Tensor], x0: Tensor, noise: Tensor, t: Tensor, alpha_bar: Tensor
) -> Tensor:
    """Mean squared error of the predicted noise of every row, fp32 (n,).

    Args:
        model: from (x_t, t) to the noise.
        t: places in the schedule, int64 (n,).
        alpha_bar: ᾱ by place: products of 1 − β.
    """
    kept = alpha_bar[t][:, None, None, None]
    out = model(kept.sqrt() * x0 + (1 - kept).sqrt() * noise, t).float()
    return (out - noise).square().flatten(1).mean(dim=1)
