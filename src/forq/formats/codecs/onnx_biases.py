"""Integer biases that follow the scales of their product.

An integer operator adds the bias to sums of products of codes, so it takes the bias's scale to be
``input scale · weight scale``. Where one of the two moves, the bias b keeps its value by other integers:

    scale = fl(input scale · weight scale)        float32
    integer = round(b / scale), ties to even, held inside int32

Outputs whose scale did not move keep their integers and their bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.errors import FormatError
from forq.formats.codecs.onnx_products import Int32Bias, Product

_MOST = (1 << 31) - 1


class Biases:
    """The integer biases of a graph, with the values that the file gives them.

    Raises:
        FormatError: a bias and the scales do not fit together.
    """

    def __init__(self, ckpt: Checkpoint, products: Iterable[Product]) -> None:
        self._follow = [(bias, product.scales) for product in products if not product.still for bias in product.biases]
        self._base = {
            name: ckpt.read(name)
            for bias, scales in self._follow
            for name in (bias.codes, bias.scales, bias.inputs, scales)
            if name
        }
        for bias, scales in self._follow:
            outputs = self._base[bias.codes].numel()
            for name in filter(None, (bias.scales, bias.inputs, scales)):
                if self._base[name].numel() not in (1, outputs):
                    raise FormatError(
                        f"{ckpt.path}: {name}: expected 1 scale or {outputs}, as {bias.codes} has outputs, found "
                        f"{self._base[name].numel()}"
                    )

    def names(self, moving: Iterable[str]) -> set[str]:
        """The tensors that follow when tensors of these names move."""
        moving = set(moving)
        return {
            name
            for bias, scales in self._follow
            if {bias.inputs, scales} & moving
            for name in (bias.codes, bias.scales)
            if name
        }

    def following(self, moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Biases and their scales for moved scales, in the file's shapes and dtypes."""
        found: dict[str, Tensor] = {}
        for bias, scales in self._follow:
            if bias.inputs in moved or scales in moved:
                found |= self._one(bias, scales, moved)
        return found

    def _one(self, bias: Int32Bias, scales: str, moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        codes = self._base[bias.codes]
        was = self._product(bias, scales, {})
        now = self._product(bias, scales, moved)
        stored = self._base[bias.scales].expand_as(codes) if bias.scales else was
        value = codes.double() * stored.double()
        integers = (value / now.double()).round().clamp(-_MOST, _MOST).to(torch.int32)
        found = {bias.codes: torch.where(now == was, codes, integers)}
        if bias.scales:
            own = self._base[bias.scales]
            fresh = torch.where(now == was, stored, now)
            found[bias.scales] = fresh if own.numel() == codes.numel() else fresh.reshape(-1)[:1]
            found[bias.scales] = found[bias.scales].reshape(own.shape)
        return found

    def _product(self, bias: Int32Bias, scales: str, moved: Mapping[str, Tensor]) -> Tensor:
        """The scale of a bias, by output: float32, in the shape of the bias."""
        inputs, own = (moved.get(name, self._base[name]).float() for name in (bias.inputs, scales))
        shape = self._base[bias.codes].shape
        return (inputs.reshape(-1) * own.reshape(-1)).reshape(-1).expand(shape.numel()).reshape(shape)
