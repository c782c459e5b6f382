"""Quantize to NF4 or FP4, byte for byte as bitsandbytes does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from forq.checkpoints import Checkpoint, finite
from forq.formats.codecs.bnb_write import config, filed, plan
from forq.layers.normal_float import Kind, quantise, table
from forq.models.convert.layers import Linear
from forq.models.convert.owners import left_in_float
from forq.models.convert.rewrite import Piece, rewrite


class LevelsJob:
    """Writes a quantized folder and sums the squared error.

    Args:
        chosen: the weights to quantize.
        blocksize: number of values that share a magnitude.
    """

    def __init__(self, ckpt: Checkpoint, chosen: Mapping[str, Linear], kind: Kind, blocksize: int) -> None:
        self.ckpt, self.chosen = ckpt, chosen
        self.kind, self.blocksize = kind, blocksize
        self.error = self.energy = 0.0

    def write(self, folder: Path) -> None:
        pieces = [Piece((name,), self._planned(name), partial(self._made, name)) for name in self.chosen]
        dtypes = {self.ckpt.info[name].dtype for name in self.chosen}
        dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        settings = config(self.kind, dtype, skipped=self._skipped())
        rewrite(self.ckpt, folder, pieces, self.ckpt.config | {"quantization_config": settings})

    def _skipped(self) -> list[str]:
        """Linear layers that stay in float; bitsandbytes quantizes all layers that are not listed here."""
        return left_in_float(self.ckpt.config, (name.removesuffix(".weight") for name in self.chosen))

    def _planned(self, name: str) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        layer = self.chosen[name]
        tensors = plan((layer.rows, layer.columns), self.kind, self.blocksize, self.ckpt.info[name].dtype)
        return {f"{name}{end}": described for end, described in tensors.items()}

    def _made(self, name: str) -> dict[str, Tensor]:
        tensor = finite.check(name, self.ckpt.read(name))
        if self.chosen[name].turned:
            tensor = tensor.t().contiguous()
        ranks, absmax = quantise(tensor, self.kind, self.blocksize)
        exact = tensor.float().view(-1)
        near = table(self.kind).levels[ranks.int()]
        near.mul_(absmax.repeat_interleave(self.blocksize)[: len(near)])
        self.error += float(near.sub_(exact).square_().sum())
        self.energy += float(exact.square().sum())
        made = filed(ranks, absmax, tuple(tensor.shape), self.kind, self.blocksize, tensor.dtype)
        return {f"{name}{end}": part for end, part in made.items()}
