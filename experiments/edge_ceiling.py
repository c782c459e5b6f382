"""Back-propagation through the scales of a quantized ResNet-20, in floats: the ceiling of experiments/edge.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

import forq
from forq.formats.codecs.onnx_products import products
from forq.models.graph.inputs import graph_of
from forq.models.leaves import trainable
from forq.models.saved import write

STEPS, BATCH, RATE = 60, 64, 0.01


class Dequantised:
    """ResNet-20 with the file's weights in floats; ``factors`` multiply the scales of every output."""

    def __init__(self, file: Path) -> None:
        import onnx
        from onnx import numpy_helper

        self.model = forq.load(file, device="cpu")
        trainable(self.model, "scales")  # its inputs, so that moved scales can be saved
        stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(file)).graph.initializer}
        found = products(graph_of(self.model.checkpoint))
        names = [node.name for node in graph_of(self.model.checkpoint).nodes if node.name in found]  # as they run
        self.layers = [self.model.get_submodule(name) for name in names]
        self.weights, self.biases = [], []
        for layer, product in zip(self.layers, map(found.__getitem__, names), strict=True):
            (bias,) = product.biases
            scale = stored[bias.scales] if bias.scales else stored[bias.inputs] * stored[product.scales]
            self.weights.append(layer.dequantise().view(stored[product.codes].shape))
            self.biases.append(torch.from_numpy((stored[bias.codes] * scale).astype(np.float32)))
        self.factors = [torch.ones(len(weight), requires_grad=True) for weight in self.weights]

    def __call__(self, x: Tensor, output: str | None = None) -> Tensor:
        """The scores of images; the graph's only output has a name that a task may say."""
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        places = iter(range(len(self.weights)))

        def conv(x: Tensor, stride: int = 1) -> Tensor:
            at = next(places)
            weight = self.weights[at] * self.factors[at][:, None, None, None]
            return functional.conv2d(x, weight, self.biases[at], stride, 1)

        x = conv((x - mean[:, None, None]) / std[:, None, None]).relu()
        for block in range(9):
            stride = 2 if block in (3, 6) else 1
            y = conv(conv(x, stride).relu())
            if stride == 2:
                pad = x.shape[1] // 2
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
            x = (x + y).relu()
        at = next(places)
        weight = self.weights[at] * self.factors[at][:, None]
        return functional.linear(x.mean((2, 3)), weight, self.biases[at])

    def write(self, folder: Path) -> None:
        """The file with the scales as they are now, in ``folder``, which is replaced."""
        moved = {
            layer.leaf_name: layer.scales * factor.detach().view(layer.scales.shape)
            for layer, factor in zip(self.layers, self.factors, strict=True)
        }
        shutil.rmtree(folder, ignore_errors=True)
        write(self.model.checkpoint, moved, folder)


def tuned(net: Dequantised, images: NDArray[np.float32], labels: NDArray[np.int64], seed: int, folder: Path) -> None:
    """Write the file with scales that Adam moved, its rate falling to zero, into ``folder``, which is replaced."""
    draw = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(net.factors, lr=RATE)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1.0 - step / STEPS)
        chosen = torch.from_numpy(draw.choice(len(x), BATCH, replace=False))
        loss = functional.cross_entropy(net(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.write(folder)
