"""Estimate the time of a forward pass from its matrix products and their measured speed on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch

from forq.checkpoints import Checkpoint
from forq.models.layout import layout as layout_of
from forq.models.names import ties

TOKENS = 1024
"""Tokens in a batch of the default recipe: 8 rows of 128."""


def seconds_a_forward(ckpt: Checkpoint, tokens: int = TOKENS, device: str = "cpu") -> float:
    """Estimate the seconds of a forward pass from headers and a short measurement.

    Each matrix takes 2·in·out operations per token, at the measured speed of float32 products in
    the shape of the largest matrix. The estimate leaves out attention, dequantising, a graph's
    float products and the savings of low-bit kernels. Real forwards of TinyStories-656K in eight
    formats took 1.3 to 3.1 times as long (one thread, one run each).

    Raises:
        FormatError: see :func:`forq.models.layout.layout`.
    """
    shapes = [shape for shape, count in matrices(ckpt).items() for _ in range(count)]
    operations = 2.0 * tokens * sum(rows * columns for rows, columns in shapes)
    return operations / operations_a_second(max(shapes, key=math.prod), tokens, device)


def matrices(ckpt: Checkpoint) -> Mapping[tuple[int, int], int]:
    """Shapes (out, in) of the matrices that multiply a token, and the number of matrices of each shape."""
    layout = layout_of(ckpt)
    counts: dict[tuple[int, int], int] = {}
    heads = set(ties(layout.model).values())
    embeddings = (name for name, module in layout.model.named_modules() if isinstance(module, torch.nn.Embedding))
    lookups = {name for name in embeddings if f"{name}.weight" not in heads}  # only used as lookup tables
    for spec in layout.specs.values():
        if layout.names.modules[spec.name] in lookups:
            continue
        shape = (spec.out_features, spec.in_features)
        counts[shape] = counts.get(shape, 0) + 1
    for place, stored in layout.names.file_of.items():
        module = layout.model.get_submodule(place.rpartition(".")[0])
        if isinstance(module, torch.nn.Linear) and place.endswith(".weight"):
            rows, columns = ckpt.info[stored].shape
            counts[(rows, columns)] = counts.get((rows, columns), 0) + 1
    return counts


def operations_a_second(shape: tuple[int, int], tokens: int, device: str) -> float:
    """Measured speed: the best of a few products, in a shape of at most 64 MB."""
    rows, columns = (min(dim, 4096) for dim in shape)
    sample = min(tokens, 512)
    x, w = torch.ones(sample, columns, device=device), torch.ones(rows, columns, device=device)
    best = math.inf
    for _ in range(4):
        began = time.perf_counter()
        x @ w.t()
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2.0 * sample * rows * columns / best
