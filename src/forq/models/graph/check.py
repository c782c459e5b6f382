"""Whether a session with inputs for what moves computes what a plain session of the changed file computes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.tensor import byte_view
from forq.errors import FormatError
from forq.formats.codecs.onnx_biases import Biases
from forq.layers.kernels.ort import session
from forq.models.graph.inputs import graph_of
from forq.models.graph.session import Session, short

_SHARE = 2.0**-5
"""How far scales are displaced for the check."""


def difference(
    ckpt: Checkpoint,
    live: Session,
    biases: Biases,
    given: Mapping[str, np.ndarray],
    shown: Mapping[str, Tensor],
    output: str,
) -> float:
    """The largest difference of outputs, relative to the largest output, with all moving tensors displaced.

    Args:
        given: inputs of the graph; one row of them is run.
        shown: the tensors that move, and those that follow.

    Raises:
        FormatError: onnxruntime cannot load or run the graph.
    """
    moved = {name: _displaced(tensor) for name, tensor in shown.items() if tensor.dtype != torch.int32}
    moved |= biases.following(moved)
    path = graph_of(ckpt).path
    try:
        plain = session(_changed(ckpt, moved), path.resolve().parent)
        (want,) = plain.run([output], dict(given))
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise FormatError(f"{path}: onnxruntime cannot run it: {short(error)}") from error
    found = live.run(given, moved, output)
    return float(np.abs(found - want).max() / max(float(np.abs(want).max()), 1e-30))


def _displaced(tensor: Tensor) -> Tensor:
    """A tensor with every second number a little larger, or of integers with other lowest bits."""
    if not tensor.is_floating_point():
        return tensor ^ 1
    places = torch.arange(tensor.numel()).view(tensor.shape) % 2
    return tensor + tensor * (_SHARE * places)


def _changed(ckpt: Checkpoint, moved: Mapping[str, Tensor]) -> bytes:
    """The model with other values of some initialisers."""
    import onnx

    model = onnx.load(str(graph_of(ckpt).path))
    for tensor in model.graph.initializer:
        if tensor.name in moved:
            for field in ("float_data", "int32_data"):
                tensor.ClearField(field)
            tensor.raw_data = bytes(byte_view(moved[tensor.name].contiguous()))
    return bytes(model.SerializeToString())
