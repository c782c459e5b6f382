"""Predict the peak memory of a process that tunes a language model's scales on a CPU, from headers alone.

    imports + codes, scales and their masters + overhead + tokenizer + logits + dense buffer + activations

Within 10 % of what loading, masters and forwards of two published files took (``benchmarks/laptop.py memory``,
results/bench-laptop.json). The dense buffer is the native kernel's: whether this machine can compile that kernel is
not asked, since that would start a compiler. Without it, the buffer may take 128 MiB.
"""

from __future__ import annotations

from collections.abc import Mapping

from forq.checkpoints import Checkpoint
from forq.layers.kernels.native import matmul as native
from forq.layers.layer import LayerSpec
from forq.tokens.pretrained import CHUNK_BYTES

IMPORTS_BYTES = 443_000_000
"""Memory of Python with torch 2.13, transformers 5.23 and forq imported, on Linux."""

_LOGITS = 3.5
"""Copies of a chunk of logits: the logits, their softmax, and the holes that freed ones leave in the heap. The same
forward of 1,024 tokens of SmolLM2 peaked at 723 MB in one process and at 856 in another."""

_OVERHEAD_BYTES = 32_000_000
"""A loaded model's modules, the buffers of the noise, and pages of the heap that are not full."""


_TOKEN_BYTES = 340
"""A tokenizer's memory by token of its vocabulary: two tables hold its spelling, and about two merges form it."""


def peak_bytes(ckpt: Checkpoint, specs: Mapping[str, LayerSpec], held: int, tokens: int) -> int | None:
    """Predict the peak of a run in bytes, imports included; None without a vocabulary in the configuration.

    Args:
        specs: the quantized layers.
        held: bytes of the loaded model and of a second copy of what moves.
        tokens: of a batch.
    """
    vocabulary, width = ckpt.config.get("vocab_size"), ckpt.config.get("hidden_size")
    if not isinstance(vocabulary, int) or not isinstance(width, int) or not specs:
        return None
    shapes = [spec.shape for spec in specs.values()]
    widest = max((rows for rows, _ in shapes if rows != vocabulary), default=width)
    # A block's forward holds about six states of the model's width, and three of the widest layer.
    activations = 4 * tokens * (6 * width + 3 * widest)
    logits = int(_LOGITS * min(CHUNK_BYTES, 4 * tokens * vocabulary))
    largest = 4 * max(rows * columns for rows, columns in shapes)
    buffer = min(largest, native.BUFFER_BYTES)
    return IMPORTS_BYTES + held + _OVERHEAD_BYTES + _TOKEN_BYTES * vocabulary + activations + logits + buffer
