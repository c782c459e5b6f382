"""Whether a session with inputs for what moves computes what a plain session of the changed file computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.tensor import byte_view
from forq.errors import FormatError
from forq.formats.codecs.onnx_biases import Biases
from forq.layers.kernels.ort import session
from forq.models.graph.inputs import graph_of
from forq.models.graph.session import Session, short, written
from forq.noise.bits import leaf_id

_SHARE = 2.0**-5
"""How far scales are displaced for the check, at most."""

_SEED = (1 << 63) - 1


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
        given: inputs of the graph, all rows of which are run.
        shown: the tensors that move, and those that follow.

    Raises:
        FormatError: onnxruntime cannot load or run the graph.
    """
    moved = {name: _displaced(name, tensor) for name, tensor in shown.items() if tensor.dtype != torch.int32}
    moved |= biases.following(moved)
    path = graph_of(ckpt).path
    try:
        plain = session(*_changed(ckpt, moved))
        (want,) = plain.run([output], dict(given))
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise FormatError(f"{path}: onnxruntime cannot run it: {short(error)}") from error
    found = live.run(given, moved, output)
    return float(np.abs(found - want).max() / max(float(np.abs(want).max()), 1e-30))


def _displaced(name: str, tensor: Tensor) -> Tensor:
    """A tensor with every number a little larger, or of integers with other lowest bits.

    Two tensors of equal numbers become different: an optimisation may rest on their being equal, as where it drops a
    DequantizeLinear and a QuantizeLinear of the same scale.
    """
    if not tensor.is_floating_point():
        return tensor ^ 1
    draw = torch.Generator().manual_seed(leaf_id(name) & _SEED)
    return tensor * (1 + _SHARE * torch.rand(tensor.shape, generator=draw))


def _changed(ckpt: Checkpoint, moved: Mapping[str, Tensor]) -> tuple[bytes, Path]:
    """The model with other values of some initialisers, and the folder of its external data."""
    import onnx

    source, root = written(graph_of(ckpt))
    model = onnx.load(source) if isinstance(source, str) else source
    for tensor in model.graph.initializer:
        if tensor.name in moved:
            for field in ("float_data", "int32_data", "external_data", "data_location"):
                tensor.ClearField(field)
            tensor.raw_data = bytes(byte_view(moved[tensor.name].contiguous()))
    return bytes(model.SerializeToString()), root
