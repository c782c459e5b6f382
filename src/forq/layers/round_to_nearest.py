"""Round to nearest: codes, zeros and scales of a float matrix, group by group, with a search for the best range.

Plain rounding spends its levels on a group's largest weight. Here every group tries a few narrower ranges and keeps
the range with the smallest squared error, with scales as the file will hold them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forq.errors import ConfigError
from forq.layers.codes import BITS, pack, parts
from forq.layers.weight import QuantWeight, zeros_dtype

_SHRINK = tuple(1.0 - 0.025 * step for step in range(17))
_BLOCK_ROWS = 256


def round_to_nearest(
    weight: Tensor, group_size: int, *, bits: int = 4, sym: bool = True, scale_dtype: torch.dtype = torch.float16
) -> tuple[QuantWeight, Tensor]:
    """Quantize a matrix.

    Args:
        weight: float (out, in).
        group_size: inputs that share a scale; divides ``in``.
        bits: of a code: 2, 3, 4 or 8.
        sym: one zero point, half of the levels, for all groups; else one for every group and output.
        scale_dtype: what the file will store; codes are chosen for the scales as rounded to it.

    Returns:
        The integers, and the scales (groups, out) in ``scale_dtype``.

    Raises:
        ConfigError: the group size or the bits are invalid, or a weight is not finite.
    """
    rows, columns = weight.shape
    if bits not in BITS:
        raise ConfigError(f"expected bits among {', '.join(map(str, BITS))}, found {bits}")
    if group_size < 1 or columns % group_size or columns % parts(bits):
        raise ConfigError(f"expected a group_size that divides {columns} inputs, found {group_size}")
    groups, levels = columns // group_size, 1 << bits
    codes = torch.empty(rows, columns * bits // 8, dtype=torch.uint8)
    zeros = torch.empty(groups, rows, dtype=zeros_dtype(bits))
    scales = torch.empty(groups, rows, dtype=scale_dtype)
    for start in range(0, rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, rows)
        block = weight[start:stop].float().view(stop - start, groups, group_size)
        if not torch.isfinite(block).all():
            raise ConfigError("expected finite weights, found NaN or infinity")
        scale, zero = _best_range(block, levels, sym, scale_dtype)
        code = _codes(block, scale, zero, levels).to(torch.uint8).view(stop - start, columns)
        codes[start:stop] = pack(code, bits)
        zeros[:, start:stop] = zero.squeeze(-1).t().to(zeros.dtype)
        scales[:, start:stop] = scale.squeeze(-1).t().to(scale_dtype)
    return QuantWeight(codes, zeros, bits, group_size), scales


def _best_range(block: Tensor, levels: int, sym: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scale and zero (rows, groups, 1) of least squared error among shrunken ranges."""
    low, high = block.amin(-1, keepdim=True).clamp(max=0), block.amax(-1, keepdim=True).clamp(min=0)
    best_error: Tensor | None = None
    best_scale = best_zero = low
    for shrink in _SHRINK:
        if sym:
            # At 4 bits there are 7 levels above zero and 8 below: the range reaches the larger side exactly.
            span = torch.maximum(high / (levels // 2 - 1), -low / (levels // 2)) * shrink
        else:
            span = (high - low) * shrink / (levels - 1)
        scale = _storable(span, dtype)
        zero = torch.full_like(scale, levels // 2)
        if not sym:
            zero = (-low * shrink / scale).round_().clamp_(0, levels - 1)
        error = ((_codes(block, scale, zero, levels) - zero) * scale - block).square_().sum(-1, keepdim=True)
        if best_error is None:
            best_error, best_scale, best_zero = error, scale, zero
        else:
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_scale = torch.where(better, scale, best_scale)
            best_zero = torch.where(better, zero, best_zero)
    return best_scale, best_zero


def _codes(block: Tensor, scale: Tensor, zero: Tensor, levels: int) -> Tensor:
    return (block / scale).round_().add_(zero).clamp_(0, levels - 1)


def _storable(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The scale as the file's dtype holds it, away from zero: a scale of 0 could never be moved off it."""
    tiny = torch.finfo(dtype).tiny
    return scale.clamp(min=tiny).to(dtype).float()
