"""The images of experiments/edge.py: CIFAR-10 by a worse camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from attack_victims import cifar10
from numpy.typing import NDArray

SHIFTS = {"noise": (0.04, 0.08, 0.12), "blur": (1.0, 1.5, 2.0), "contrast": (0.5, 0.3, 0.15)}
"""Standard deviation of Gaussian noise in units of the range; radius of the disk in pixels; factor of the contrast."""
SIZES = (200, 1000)
"""Labelled images to tune on."""

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


def shifted(x: Pixels, kind: str, size: float, seed: int) -> Pixels:
    """Images of a worse camera; the same seed gives the same noise."""
    y = x.astype(np.float64) / 255.0
    if kind == "noise":
        y = y + np.random.default_rng(seed).normal(0.0, size, y.shape)
    elif kind == "contrast":
        middle = y.mean(axis=(1, 2, 3), keepdims=True)
        y = (y - middle) * size + middle
    else:
        reach = int(np.ceil(size))
        grid = np.arange(-reach, reach + 1)
        distance = np.hypot(*np.meshgrid(grid, grid))
        disk = np.clip(size + 0.5 - distance, 0.0, 1.0)  # its edge is one pixel wide
        padded = np.pad(y, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
        high, wide = y.shape[1:3]
        y = sum(
            disk[down, across] / disk.sum() * padded[:, down : down + high, across : across + wide]
            for down, across in np.ndindex(disk.shape)
        )
    return (y.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)


def images(data: Path) -> tuple[tuple[Pixels, Labels], tuple[Pixels, Labels]]:
    """Training images without those of the calibration, and test images."""
    parts = [cifar10(data, batch) for batch in range(5)]
    x, y = (np.concatenate(some) for some in zip(*parts, strict=True))
    return (x[256:], y[256:]), cifar10(data, 50)


def rows(data: Path, work: Path, kind: str, size: float, count: int, seed: int) -> Path:
    """The images of a cell as an .npz; kind "" shifts nothing."""
    (x, y), (test, labels) = images(data)
    chosen = np.random.default_rng(seed).permutation(len(x))[:count]
    path = work / f"rows-{kind}-{size}-{count}-{seed}.npz"
    few = shifted(x[chosen], kind, size, seed + 1)
    np.savez(
        path, train_images=few, train_labels=y[chosen],
        test_images=shifted(test, kind, size, 1000), test_labels=labels,
    )  # fmt: skip
    return path
