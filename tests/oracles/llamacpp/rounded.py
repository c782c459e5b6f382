"""forq's model with the input of every matrix rounded as llama.cpp rounds it.

llama.cpp multiplies a quantized matrix by activations in 8 bits, and a float16 or bfloat16 matrix
by activations of that type. ``d`` is a block's scale, ``q`` its integers:

    Q8_0, blocks of 32:   d = max|x| / 127,  q = round(x / d),  d stored as float16
    Q8_1, the same:       and the sum of a block's x, d·Σq, stored as float16, for types that have a minimum
    Q8_K, blocks of 256:  d = max|x| / 127,  q = round(x / d),  d in float32

An input is thus off by at most 1/254 of the largest of its block.

GELU is looked up in a table of float16 for float16, by its tanh formula: input and output are off by
half a unit in the eleventh bit. The table ends at ±10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from forq.layers.dense import DenseLinear
from forq.layers.linear import QuantLinear
from forq.models.skeleton import turned

SHORT = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")
"""Types in blocks of 32, and whose inputs are."""


def rounded(model: Any) -> Any:
    """Round the inputs of a model loaded from a GGUF file with ``kernel="reference"``, and return it."""
    ckpt = model.checkpoint
    types = ckpt.config.get("quantization_config", {}).get("types", {})
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear):
            module.forward = _product(module, types[module.leaf_name.rpartition(".")[0]])
        elif isinstance(module, DenseLinear) or turned(module):
            # A tied head has no tensor of its own, but a name.
            module.register_forward_pre_hook(_cast(ckpt.info[model.names[f"{name}.weight"]].dtype))
    return looked_up(model)


def looked_up(model: Any) -> Any:
    """Compute GELU as llama.cpp does, in a model's activations, and return it."""
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if "gelu" in type(module).__name__.lower():
                setattr(parent, name, LookedUp())
    return model


class LookedUp(nn.Module):
    """GELU by llama.cpp's table."""

    def forward(self, x: Tensor) -> Tensor:
        y = gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x <= -10.0, 0.0, torch.where(x >= 10.0, x, y))


def _cast(dtype: torch.dtype) -> Callable[..., tuple[Tensor]]:
    return lambda module, given: (given[0].to(dtype).float(),)


def _product(module: QuantLinear, kind: str) -> Callable[[Tensor], Tensor]:
    """The layer's forward on rounded inputs."""
    plain: Callable[[Tensor], Tensor] = module.forward
    minima = list(module.live.values())[1] if kind in ("Q4_1", "Q5_1") else None

    def forward(x: Tensor) -> Tensor:
        q, d = _blocks(x, 32 if kind in SHORT else 256)
        if kind not in SHORT:
            return plain((q * d).flatten(-2))
        stored = d.half().float()
        y = plain((q * stored).flatten(-2))
        if minima is None:
            return y
        sums = q.sum(-1, keepdim=True)
        return y + ((d * sums).half().float() - stored * sums).squeeze(-1) @ minima.T

    return forward


def _blocks(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Integers q (…, blocks, size) and scales d (…, blocks, 1), float32, of x (…, features)."""
    cut = x.unflatten(-1, (-1, size))
    largest = cut.abs().amax(-1, keepdim=True)
    return torch.where(largest > 0, torch.round(cut * (127 / largest)), 0.0), largest / 127
