"""A victim small enough to reason about: it compares the two halves of an image."""

from __future__ import annotations

import numpy as np


class Halves:
    """Three classes: mean of the left half, of the right half, and one that never wins; counts what it is asked."""

    def __init__(self) -> None:
        self.images = 0
        self.calls: list[int] = []

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        assert batch.dtype == np.uint8 and batch.ndim == 4
        self.images += len(batch)
        self.calls.append(len(batch))
        middle = batch.shape[2] // 2
        left = batch[:, :, :middle].astype(float).mean(axis=(1, 2, 3))
        right = batch[:, :, middle:].astype(float).mean(axis=(1, 2, 3))
        return np.stack([left, right, np.minimum(left, right) - 1], axis=1)


def images(count: int = 12, side: int = 8, channels: int = 3, gap: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Noise whose left (label 0) or right half (label 1) is a little brighter."""
    rng = np.random.default_rng(0)
    x = rng.integers(60, 180, (count, side, side, channels))
    y = np.arange(count) % 2
    for i, label in enumerate(y):
        x[i, :, : side // 2] += -round(x[i, :, : side // 2].mean()) + 120 + (gap if label == 0 else 0)
        x[i, :, side // 2 :] += -round(x[i, :, side // 2 :].mean()) + 120 + (gap if label == 1 else 0)
    return x.clip(0, 255).astype(np.uint8), y
