"""Scratch: the buffers all layers of a model share, so that no two dense weights ever exist at once."""

from __future__ import annotations

import torch
from torch import Tensor


class Scratch:
    """Flat buffers by role, dtype and device, grown to the largest request and then reused.

    A tensor handed out is overwritten by the next layer: do not keep it beyond the forward of its layer.
    """

    __slots__ = ("_flat",)

    def __init__(self) -> None:
        self._flat: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, role: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised contiguous tensor on the role's buffer."""
        size = 1
        for dim in shape:
            size *= dim
        key = (role, dtype, device)
        flat = self._flat.get(key)
        if flat is None or flat.numel() < size:
            self._flat.pop(key, None)
            # A tensor made in inference mode could not be written outside of it: a score, then model.generate().
            with torch.inference_mode(False):
                flat = self._flat[key] = torch.empty(size, dtype=dtype, device=device)
        return flat[:size].view(shape)

    def clear(self) -> None:
        """Free the buffers; the next forward makes its own again."""
        self._flat.clear()

    @property
    def memory_bytes(self) -> int:
        """Bytes held at present."""
        return sum(flat.numel() * flat.element_size() for flat in self._flat.values())
