"""The distance between drawn and held-out pictures, in the features of a network that the user names.

    MMD² = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2·mean k(x_i, y_j),    k(a, b) = (a·b/d + 1)³

This is the unbiased estimate of the kernel inception distance (Bińkowski et al. 2018,
arXiv 1801.01401), which used the Inception network. Numbers are comparable only for the same network,
number of pictures, resolution and number of scheduler steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from forq.checkpoints.containers.onnx import external
from forq.errors import ConfigError, RunError
from forq.plugins.networks import Network, open_network

ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Distance:
    """MMD² and its standard error over new samples of the same number of pictures on both sides."""

    value: float
    error: float


def distance(x: Tensor, y: Tensor) -> Distance:
    """Squared MMD between two sets of features, in float64; see the module for the formula.

    If both sets have the same distribution, the estimate is 0 on average, so it can be slightly below
    0. The standard error is the first-order one: row i of x contributes
    2·(mean_{j≠i} k(x_i, x_j) − mean_j k(x_i, y_j)), and rows of y likewise. It is approximate. It is
    too small when the estimate is below 0, because then both distributions are almost equal.

    Args:
        x: (n, d), n ≥ 2.
        y: (m, d), m ≥ 2.
    """
    x, y = x.double(), y.double()

    def sums(a: Tensor, b: Tensor) -> Tensor:
        # In pieces: all pairs of a large split at once would take gigabytes.
        pieces = (a[at : at + ROWS_AT_ONCE] @ b.T for at in range(0, len(a), ROWS_AT_ONCE))
        return torch.cat([((piece / b.shape[1] + 1) ** 3).sum(dim=1) for piece in pieces])

    def within(a: Tensor) -> Tensor:
        diagonal = (a.square().sum(dim=1) / a.shape[1] + 1) ** 3
        return (sums(a, a) - diagonal) / (len(a) - 1)

    from_x, from_y = within(x) - sums(x, y) / len(y), within(y) - sums(y, x) / len(x)
    variance = 4 * (from_x.var() / len(x) + from_y.var() / len(y))
    return Distance(float(from_x.mean() + from_y.mean()), float(variance.sqrt()))


@dataclass(slots=True)
class Features:
    """A network that computes features of pictures; its output is checked at each call.

    A network file declares its input: float32 (n, c, h, w) in 0 … 1 or uint8 (n, h, w, c). Pictures
    are resized to the declared height and width. A single channel is the mean of red, green and blue.
    What a file does not declare, and the input of a Python function, is float32 RGB at the task's
    resolution.

    Attributes:
        width: number of features d; the first call sets it, and later calls must match it.
    """

    name: str
    network: Network
    width: int | None = field(default=None, init=False)

    @classmethod
    def open(cls, name: str) -> Features:
        """Open a network by the name that ``forq attack`` accepts too.

        Raises:
            ConfigError: there is no such network, or it does not take pictures.
            FormatError: the file is broken or would have to be unpickled.
        """
        network = open_network(name, "task.features", external.files)
        if network.input is not None and network.input.channels not in (None, 1, 3):
            raise ConfigError(f"{name}: expected an input of 1 or 3 channels, found {network.input.channels}")
        return cls(name, network)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Features of pictures, float64 (n, d).

        Pictures are (n, 3, h, w) in 0 … 1; they are rounded to the 256 levels of an image file.

        Raises:
            ConfigError: the network fails, or does not return n rows of finite numbers.
            RunError: the pictures are not finite.
        """
        if not bool(pictures.isfinite().all()):
            raise RunError("the model drew pictures that are not finite: its weights are broken")
        batch = self._input(pictures)
        try:
            features = torch.as_tensor(self.network.predict(batch)).detach().cpu().double()
        except Exception as error:  # whatever the user's code or a runtime raises
            reason = next(iter(str(error).strip().splitlines()), "no message")
            raise ConfigError(
                f"task.features: {self.name} failed on pictures {batch.dtype} {batch.shape}: "
                f"{type(error).__name__}: {reason}"
            ) from error
        expected = f"({len(batch)}, {'d' if self.width is None else self.width})"
        if (
            features.ndim != 2
            or len(features) != len(batch)
            or features.shape[1] != (self.width or max(1, features.shape[1]))
        ):
            raise ConfigError(
                f"task.features: expected features {expected} of {len(batch)} pictures, found "
                f"{tuple(features.shape)} from {self.name}"
            )
        if not bool(features.isfinite().all()):
            raise ConfigError(f"task.features: expected finite features, found NaN or infinite ones from {self.name}")
        self.width = features.shape[1]
        return features

    def _input(self, pictures: Tensor) -> NDArray[Any]:
        declared, x = self.network.input, (pictures.float() * 255).round() / 255
        if declared is not None:
            if declared.channels == 1:
                x = x.mean(dim=1, keepdim=True)
            size = (declared.height or x.shape[2], declared.width or x.shape[3])
            if size != x.shape[2:]:
                x = interpolate(x, size, mode="bilinear", antialias=True)
            if not declared.floats:
                x = (x * 255).round().byte().permute(0, 2, 3, 1)
        return np.ascontiguousarray(x.numpy())


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Features of held-out pictures, and the captions and noise of the drawn ones: the same for every model.

    Attributes:
        features: the network that computes features.
        held_out: features of the held-out pictures, float64 (m, d).
        captions: one caption per drawn picture.
        draw: draws pictures (n, 3, h, w) in 0 … 1 from a model, captions and the seed of the first
            picture's noise; the seeds of the others follow.
        most: maximum number of pictures drawn at once.
    """

    features: Features
    held_out: Tensor
    captions: Sequence[str]
    draw: Callable[[nn.Module, Sequence[str], int], Tensor]
    most: int

    def distance(self, model: nn.Module, progress: Callable[[int], object] = lambda drawn: None) -> Distance:
        """The :func:`distance` between pictures that a model draws and the held-out pictures.

        Args:
            progress: called after each batch of pictures, with their number.

        Raises:
            ConfigError: the network failed, see :class:`Features`.
            RunError: a picture is not finite.
        """
        drawn = []
        for start in range(0, len(self.captions), self.most):
            captions = self.captions[start : start + self.most]
            drawn.append(self.features(self.draw(model, captions, start)))
            progress(len(captions))
        return distance(torch.cat(drawn), self.held_out)
