"""How far pictures that a model draws are from held-out ones, in the features of a network the user names.

    MMD² = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2·mean k(x_i, y_j),    k(a, b) = (a·b/d + 1)³

the unbiased estimate of the kernel inception distance (Bińkowski et al. 2018, arXiv 1801.01401), whose network was
Inception: numbers compare with others of the same network, number of pictures, resolution and scheduler's steps alone.
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

from forq.errors import ConfigError, RunError
from forq.plugins.networks import Network, open_network

_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Distance:
    """MMD², and its standard error: what other draws of as many pictures of both sides would change."""

    value: float
    error: float


def distance(x: Tensor, y: Tensor) -> Distance:
    """Squared MMD of two sets of features, see the module; in float64.

    It is 0 on average for two sets of one law, and so at times a little below. The error is that of first order: of an
    estimate whose row i counts 2·(mean_{j≠i} k(x_i, x_j) − mean_j k(x_i, y_j)), and alike for y;
    rough, and too small for a distance below 0, where both laws are all but one.

    Args:
        x: (n, d), n ≥ 2.
        y: (m, d), m ≥ 2.
    """
    x, y = x.double(), y.double()

    def sums(a: Tensor, b: Tensor) -> Tensor:
        # In pieces: all pairs of a large split at once are gigabytes.
        pieces = (a[at : at + _ROWS] @ b.T for at in range(0, len(a), _ROWS))
        return torch.cat([((some / b.shape[1] + 1) ** 3).sum(dim=1) for some in pieces])

    def within(a: Tensor) -> Tensor:
        themselves = (a.square().sum(dim=1) / a.shape[1] + 1) ** 3
        return (sums(a, a) - themselves) / (len(a) - 1)

    one, other = within(x) - sums(x, y) / len(y), within(y) - sums(y, x) / len(x)
    variance = 4 * (one.var() / len(x) + other.var() / len(y))
    return Distance(float(one.mean() + other.mean()), float(variance.sqrt()))


@dataclass(slots=True)
class Features:
    """A network from pictures to features, checked at every call.

    A file's own input decides what it is shown: float32 (n, c, h, w) in 0 … 1 or uint8 (n, h, w, c); one channel is the
    mean of red, green and blue; pictures are resized to the height and width it asks for. A Python function, and a file
    for what it leaves open, get float32 RGB of the task's resolution.

    Attributes:
        width: d, learnt from the first call, and held to in every later one.
    """

    name: str
    network: Network
    width: int | None = field(default=None, init=False)

    @classmethod
    def open(cls, name: str) -> Features:
        """The network of a name, as ``forq attack`` takes one.

        Raises:
            ConfigError: there is none, or it does not take pictures.
            FormatError: the file is broken or would have to be unpickled.
        """
        network = open_network(name, "task.features")
        if network.input is not None and network.input.channels not in (None, 1, 3):
            raise ConfigError(f"{name}: expected an input of 1 or 3 channels, found {network.input.channels}")
        return cls(name, network)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Features, float64 (n, d), of pictures (n, 3, h, w) in 0 … 1, rounded to the 256 levels a file has.

        Raises:
            ConfigError: the network fails, or returns something else than n rows of finite numbers.
            RunError: the pictures are not finite.
        """
        if not bool(pictures.isfinite().all()):
            raise RunError("the model drew pictures that are not finite: its weights are broken")
        batch = self._asked(pictures)
        try:
            found = torch.as_tensor(self.network.predict(batch)).detach().cpu().double()
        except Exception as error:  # whatever the user's code or a runtime raises
            said = next(iter(str(error).strip().splitlines()), "nothing said")
            raise ConfigError(
                f"task.features: {self.name} failed on pictures {batch.dtype} {batch.shape}: "
                f"{type(error).__name__}: {said}"
            ) from error
        wanted = f"({len(batch)}, {'d' if self.width is None else self.width})"
        if found.ndim != 2 or len(found) != len(batch) or found.shape[1] != (self.width or max(1, found.shape[1])):
            raise ConfigError(
                f"task.features: expected features {wanted} of {len(batch)} pictures, found {tuple(found.shape)} from "
                f"{self.name}"
            )
        if not bool(found.isfinite().all()):
            raise ConfigError(f"task.features: expected finite features, found NaN or infinite ones from {self.name}")
        self.width = found.shape[1]
        return found

    def _asked(self, pictures: Tensor) -> NDArray[Any]:
        taken, x = self.network.input, (pictures.float() * 255).round() / 255
        if taken is not None:
            if taken.channels == 1:
                x = x.mean(dim=1, keepdim=True)
            size = (taken.height or x.shape[2], taken.width or x.shape[3])
            if size != x.shape[2:]:
                x = interpolate(x, size, mode="bilinear", antialias=True)
            if not taken.floats:
                x = (x * 255).round().byte().permute(0, 2, 3, 1)
        return np.ascontiguousarray(x.numpy())


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Held-out pictures as features, and what is drawn to be compared with them: the same for every model.

    Attributes:
        held_out: float64 (m, d).
        captions: one for each picture drawn.
        draw: pictures (n, 3, h, w) in 0 … 1 of captions, from the noise of the seeds that begin at a number.
        most: pictures drawn at once.
    """

    features: Features
    held_out: Tensor
    captions: Sequence[str]
    draw: Callable[[nn.Module, Sequence[str], int], Tensor]
    most: int

    def distance(self, model: nn.Module, progress: Callable[[int], object] = lambda drawn: None) -> Distance:
        """:func:`distance` of what a model draws from the held-out pictures.

        Args:
            progress: called with the number of pictures drawn, some at a time.

        Raises:
            ConfigError: the network failed, see :class:`Features`.
            RunError: a picture is not finite.
        """
        found = []
        for start in range(0, len(self.captions), self.most):
            some = self.captions[start : start + self.most]
            found.append(self.features(self.draw(model, some, start)))
            progress(len(some))
        return distance(torch.cat(found), self.held_out)
