"""An embedding whose table stays quantized: only the rows of the batch's tokens are dequantised."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forq.layers.linear import QuantLinear


class QuantEmbedding(nn.Module):
    """Rows of a quantized matrix by token id.

    Attributes:
        table: the matrix (vocabulary, width) as a layer; a tied head is the same layer.
        dtype: of the output.
        scale: what the rows are multiplied by (Gemma); a tied head is not. None: by nothing.
    """

    def __init__(self, table: QuantLinear, dtype: torch.dtype, scale: Tensor | float | None = None) -> None:
        super().__init__()
        self.table = table
        table.embeds = True
        self.dtype = dtype
        self.scale = scale

    @property
    def num_embeddings(self) -> int:
        return self.table.out_features

    @property
    def embedding_dim(self) -> int:
        return self.table.in_features

    def forward(self, ids: Tensor) -> Tensor:
        """int (...) → (..., width)."""
        wanted, places = torch.unique(ids, return_inverse=True)
        rows = self.table.rows(wanted)[places].to(self.dtype)
        if self.scale is None:
            return rows
        return rows * (self.scale.to(self.dtype) if isinstance(self.scale, Tensor) else self.scale)
