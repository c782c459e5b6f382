"""MNIST of the data folder as float images in [0, 1], and the styles it is shifted to."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


def train_digits(data: Path, sheets: Iterable[int]) -> tuple[Tensor, Tensor]:
    """Training digits of some of the twenty sheets: float (n, 28, 28), int64 (n,)."""
    text = (data / "mnist" / "mnist_labels.js").read_text(encoding="utf-8")
    labels = torch.tensor(json.loads(text[text.index("[") : text.rindex("]") + 1]))
    images, said = [], []
    for sheet in sheets:
        with Image.open(data / "mnist" / f"mnist_batch_{sheet}.png") as picture:
            images.append(torch.from_numpy(np.asarray(picture.convert("L")).copy()).view(-1, 28, 28))
        said.append(labels[3000 * sheet : 3000 * sheet + len(images[-1])])
    return torch.cat(images).float() / 255, torch.cat(said)


def test_digits(data: Path) -> tuple[Tensor, Tensor]:
    """The 10,000 test digits."""
    raw = [gzip.decompress((data / "mnist" / f"t10k-{name}-ubyte.gz").read_bytes()) for name in
           ("images-idx3", "labels-idx1")]  # fmt: skip
    images = torch.from_numpy(np.frombuffer(raw[0], np.uint8, offset=16).copy()).view(-1, 28, 28)
    return images.float() / 255, torch.from_numpy(np.frombuffer(raw[1], np.uint8, offset=8).copy()).long()


def slanted(images: Tensor, slope: float = 0.5) -> Tensor:
    theta = torch.tensor([[1.0, slope, 0.0], [0.0, 1.0, 0.0]]).expand(len(images), 2, 3)
    grid = functional.affine_grid(theta, [len(images), 1, 28, 28], align_corners=False)
    return functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def thick(images: Tensor) -> Tensor:
    return functional.max_pool2d(images[:, None], 3, 1, 1)[:, 0]


STYLES = {"plain": lambda images: images, "inverted": lambda images: 1 - images, "slanted": slanted, "thick": thick}
