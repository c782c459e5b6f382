"""Trainable twins of quantized layers, for ceilings by back-propagation: their scales, or adapters beside them.

They hold dense float32 matrices, which forq does not: their memory says nothing of a tuned kernel's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from forq.layers.embedding import QuantEmbedding
from forq.layers.linear import QuantLinear

_RUNS = (128, 64, 32, 16)


class Scaled(nn.Module):
    """A quantized layer whose scales have gradients: scale₀ · (1 + θ). All else stands still.

    A weight is linear in the scales of its group: the sum of a level times its entry of every tensor of scales.
    """

    def __init__(self, layer: QuantLinear) -> None:
        super().__init__()
        self.bias = layer.bias
        scales = [tensor for spec, tensor in layer.live.items() if spec.group == "scales"]
        start = [tensor.clone() for tensor in scales]
        self.levels, self.places, self.starts, self.thetas = [], [], start, nn.ParameterList()
        self.shown: tuple[tuple[int, ...], Tensor] | None = None
        for tensor in scales:

            def dense(own: Tensor, tensor: Tensor = tensor) -> Tensor:
                """The matrix where this tensor is ``own``, and the others are 0."""
                for other in scales:
                    other.copy_(own) if other is tensor else other.zero_()
                return layer.dequantise()

            levels = dense(torch.ones_like(tensor))
            # The entry of every weight, by its number, from the layer itself: no format's layout is known here.
            numbers = dense(torch.arange(1, tensor.numel() + 1, dtype=torch.float32).view(tensor.shape))
            places = (numbers / levels.where(levels != 0, torch.nan)).nan_to_num(1.0) - 1
            run, used = _runs(places.round().long(), levels)
            self.levels.append(levels.unflatten(-1, (-1, run)))
            # None: the entries follow one another, so that nothing has to be gathered.
            self.places.append(None if torch.equal(used, torch.arange(tensor.numel())) else used)
            self.thetas.append(nn.Parameter(torch.zeros_like(tensor)))
        for tensor, before in zip(scales, start, strict=True):
            tensor.copy_(before)

    def weight(self) -> Tensor:
        """The matrix; without gradients it is made once after every step."""
        if torch.is_grad_enabled():
            self.shown = None
            return self._made()
        version = tuple(theta._version for theta in self.thetas)
        if self.shown is None or self.shown[0] != version:
            self.shown = version, self._made()
        return self.shown[1]

    def _made(self) -> Tensor:
        parts = zip(self.levels, self.places, self.starts, self.thetas, strict=True)
        dense = [(a * _taken(s * (1 + t), at).view(a.shape[:2])[..., None]).flatten(1) for a, at, s, t in parts]
        return reduce(Tensor.add_, dense)  # in place: a product's gradient does not need the product

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight(), self.bias)


def _runs(places: Tensor, levels: Tensor) -> tuple[int, Tensor]:
    """How many neighbours of a row share their entry, and the entry of every run.

    Taken together, their gradients need no scattering. A level of 0 has no entry of its own.
    """
    for run in _RUNS:
        if places.shape[1] % run == 0:
            grouped = places.unflatten(-1, (-1, run))
            entry = grouped.amax(-1, keepdim=True)
            if ((grouped == entry) | (levels.view(grouped.shape) == 0)).all():
                return run, entry.view(-1)
    return 1, places.view(-1)


def _taken(entries: Tensor, at: Tensor | None) -> Tensor:
    flat = entries.reshape(-1)
    return flat if at is None else flat[at]


class Still(nn.Module):
    """A layer that does not train and lets gradients through."""

    def __init__(self, layer: QuantLinear) -> None:
        super().__init__()
        self.register_buffer("weight", layer.dequantise())
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Adapted(Still):
    """LoRA (Hu et al., arXiv 2106.09685) of rank r beside a frozen quantized layer; B starts at zero."""

    def __init__(self, layer: QuantLinear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__(layer)
        self.factor = alpha / rank
        self.a = nn.Parameter(torch.empty(rank, layer.in_features))
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + linear(linear(x, self.a), self.b) * self.factor


def swap(model: Any, twin: Callable[[QuantLinear], nn.Module]) -> list[nn.Parameter]:
    """Put a twin in the place of every quantized layer; the parameters to train.

    The table of an embedding stands still, and the head that shares it.

    Raises:
        SystemExit: no layer is quantized.
    """
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        parent, _, child = name.rpartition(".")
        if isinstance(layer, QuantLinear) and not isinstance(holder := model.get_submodule(parent), QuantEmbedding):
            setattr(holder, child, Still(layer) if layer.embeds else twin(layer))
    found = [p for p in model.parameters() if p.requires_grad]
    if not found:
        raise SystemExit("nothing quantized to train")
    return found
