"""Float layers whose weight is never displaced in storage: a probe is formed in a shared buffer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from forq.coordinates.leaf import Overlay
from forq.layers.kernels import bfloat16
from forq.layers.scratch import Scratch


class DenseLeaf:
    """A large float matrix of a model; the storage is its own master.

    Attributes:
        name: of the tensor in the checkpoint.
        group: ``dense``, or ``embeddings`` where a layer that shares it is an embedding.
        dtype: what the checkpoint's file stores.
        storage: the parameter the layers share; tied layers share one leaf.
        overlay: where set, writes the displaced matrix into a buffer of the storage's shape and dtype.
    """

    __slots__ = ("dtype", "group", "name", "overlay", "scratch", "storage")

    out_axis = 0

    def __init__(
        self, name: str, dtype: torch.dtype, storage: nn.Parameter, scratch: Scratch, group: str = "dense"
    ) -> None:
        self.name = name
        self.group = group
        self.dtype = dtype
        self.storage: Tensor = storage
        self.scratch = scratch
        self.overlay: Overlay | None = None

    @property
    def shape(self) -> torch.Size:
        """Shape of the leaf, which is the shape of the checkpoint's tensor."""
        return self.storage.shape

    def read(self) -> Tensor:
        """A fresh float32 copy of the storage."""
        return self.storage.detach().to(torch.float32, copy=True)

    @torch.no_grad()
    def write(self, x: Tensor) -> None:
        """Copy into the storage, rounding to its dtype."""
        self.storage.copy_(x)

    def shown(self) -> Tensor:
        """The matrix that the next forward uses; valid until the next layer's forward."""
        if self.overlay is None:
            return self.storage
        buffer = self.scratch.take("dense", tuple(self.shape), self.storage.dtype, self.storage.device)
        self.overlay(buffer)
        return buffer


class DenseLinear(nn.Module):
    """``y = x · wᵀ + b``, with w from its leaf.

    Attributes:
        in_bfloat16: the product is computed in bfloat16; see :mod:`forq.layers.kernels.bfloat16`.
    """

    bias: nn.Parameter | None

    def __init__(self, weight: nn.Parameter, bias: Tensor | None, leaf: DenseLeaf) -> None:
        super().__init__()
        self.weight = weight
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.leaf = leaf
        self.in_bfloat16 = False

    @property
    def in_features(self) -> int:
        return int(self.weight.shape[1])

    @property
    def out_features(self) -> int:
        return int(self.weight.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        if self.in_bfloat16:
            y = bfloat16.linear(x, self.leaf.shown(), self.leaf.scratch)
            return y if self.bias is None else y.add_(self.bias)
        return functional.linear(x, self.leaf.shown(), self.bias)


class DenseEmbedding(nn.Module):
    """Rows of w by token id, with w from its leaf."""

    def __init__(self, weight: nn.Parameter, leaf: DenseLeaf) -> None:
        super().__init__()
        self.weight = weight
        self.leaf = leaf

    @property
    def num_embeddings(self) -> int:
        return int(self.weight.shape[0])

    @property
    def embedding_dim(self) -> int:
        return int(self.weight.shape[1])

    def forward(self, ids: Tensor) -> Tensor:
        """int (...) → (..., width)."""
        return functional.embedding(ids, self.leaf.shown())
