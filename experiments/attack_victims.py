"""The victims of attacks.py: ResNet-20 (CIFAR-10) and a CNN (MNIST), their ONNX files, and the images attacked."""

from __future__ import annotations

import gzip
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from forq.attacks.victims import open_victim

VICTIMS = {
    "resnet20": ("cifar10", (8, 4)),
    "resnet20-int8": ("cifar10", (8, 4)),
    "mnist-cnn": ("mnist", (76, 51)),
    "mnist-cnn-int8": ("mnist", (76, 51)),
}
ROWS = {"cifar10": 570, "mnist": 520}


class Block(nn.Module):
    """Two convolutions and a shortcut without weights (option A)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.pad = stride, (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return functional.relu(x + y)


class ResNet20(nn.Module):
    """He et al. 2015, section 4.2; takes levels in 0 … 1 and normalises them itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1((x - self.mean) / self.std)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class MnistCNN(nn.Module):
    """The MNIST network of Carlini and Wagner (2017); its dense layer reads [H, W, C]."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((1, 32), (32, 32), (32, 64), (64, 64))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in sizes)
        self.dense = nn.ModuleList(nn.Linear(a, b) for a, b in ((1024, 200), (200, 200), (200, 10)))

    def forward(self, x: Tensor) -> Tensor:
        x = x - 0.5
        for i, conv in enumerate(self.convs):
            x = functional.relu(conv(x))
            if i % 2:
                x = functional.max_pool2d(x, 2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.dense[2](functional.relu(self.dense[1](functional.relu(self.dense[0](x)))))


def resnet20(data: Path) -> nn.Module:
    state = torch.load(data / "resnet20-cifar10" / "resnet20-12fca82f.th", weights_only=True, map_location="cpu")
    model = ResNet20()
    model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state["state_dict"].items()})
    return model.eval()


def mnist_cnn(data: Path) -> nn.Module:
    import h5py

    model = MnistCNN()
    with h5py.File(data / "mnist-cnn" / "mnist_cnn.h5") as file, torch.no_grad():
        for kind, layers in (("conv2d", model.convs), ("dense", model.dense)):
            for number, layer in enumerate(layers, 1):
                name = f"{kind}_{number}"
                stored = file[f"model_weights/{name}/{name}"]
                kernel = torch.from_numpy(stored["kernel:0"][()])
                layer.weight.copy_(kernel.permute(3, 2, 0, 1) if kind == "conv2d" else kernel.T)
                layer.bias.copy_(torch.from_numpy(stored["bias:0"][()]))
    return model.eval()


def cifar10(data: Path, batch: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A file of images, one a row of RGB pixels; 0–4 are train images, 50 the first thousand test images."""
    from PIL import Image

    folder = data / "cifar10"
    x = np.asarray(Image.open(folder / f"cifar10_batch_{batch}.png").convert("RGB")).reshape(-1, 32, 32, 3)
    labels = json.loads(re.search(r"\[.*?\]", (folder / "cifar10_labels.js").read_text(), re.S)[0])
    return x, np.array(labels[1000 * batch : 1000 * batch + len(x)])


def mnist(data: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The test images."""
    folder = data / "mnist"
    x = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    y = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return x.reshape(-1, 28, 28, 1), y.astype(np.int64)


def attacked(data: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The rows that are reported."""
    x, y = cifar10(data, 50) if name == "cifar10" else mnist(data)
    return x[: ROWS[name]], y[: ROWS[name]]


def floats(x: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray((x / np.float32(255)).transpose(0, 3, 1, 2), np.float32)


def export(data: Path, work: Path) -> None:
    """The two models as ONNX, and both with weights and activations in 8 bits, calibrated on rows not attacked."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, x: NDArray[np.float32]) -> None:
            self.parts = iter(np.split(x, 8))

        def get_next(self) -> dict[str, Any] | None:
            part = next(self.parts, None)
            return None if part is None else {"images": part}

    work.mkdir(parents=True, exist_ok=True)
    calibration = {"resnet20": cifar10(data, 0)[0][:256], "mnist-cnn": mnist(data)[0][-256:]}
    for name, model in (("resnet20", resnet20(data)), ("mnist-cnn", mnist_cnn(data))):
        x = torch.from_numpy(floats(calibration[name]))
        axes = {"images": {0: "n"}, "scores": {0: "n"}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter without further dependencies is called deprecated
            path = work / f"{name}.onnx"
            names = {"input_names": ["images"], "output_names": ["scores"]}
            torch.onnx.export(model, (x[:2],), str(path), dynamic_axes=axes, dynamo=False, opset_version=17, **names)
        clean = work / f"{name}-clean.onnx"
        quant_pre_process(str(path), str(clean))
        eight = {"weight_type": QuantType.QInt8, "activation_type": QuantType.QUInt8, "per_channel": True}
        small = str(work / f"{name}-int8.onnx")
        quantize_static(str(clean), small, Reader(x.numpy()), quant_format=QuantFormat.QDQ, **eight)
        clean.unlink()
    for name, (source, _) in VICTIMS.items():
        predict, _ = open_victim(str(work / f"{name}.onnx"), floats=True, threads=1)
        x, y = cifar10(data, 50) if source == "cifar10" else mnist(data)
        right = [predict(floats(x[at : at + 200])).argmax(1) == y[at : at + 200] for at in range(0, len(x), 200)]
        size = (work / f"{name}.onnx").stat().st_size
        print(f"{name}: {100 * np.mean(right):.2f} % of {len(x)} test images, {size} bytes")
