"""onnxruntime's session of a graph that is tuned: what moves is an input of it and no constant.

What moves is bound where it lies, so that a probe rebuilds no session. Products run at accuracy level 0 whatever the
file asks for: level 4 with scales as an input gives wrong results without an error (onnxruntime 1.31.1). Scales in
float16 are masters in float32 here, so around such a product x and y are cast.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from forq.checkpoints import Checkpoint
from forq.checkpoints.containers.onnx.graph import Graph, Initialiser
from forq.errors import FormatError
from forq.layers.kernels.ort import session
from forq.models.graph.inputs import graph_of

if TYPE_CHECKING:
    import onnx

_INLINE_BYTES = 1024


class Session:
    """A graph, ready to run.

    Args:
        ckpt: an ONNX model.
        live: names of the initialisers that are inputs: float32 where the file has floats, else as it has them.

    Raises:
        FormatError: onnxruntime cannot load it, or what moves is read by something else than a product.
    """

    def __init__(self, ckpt: Checkpoint, live: Collection[str]) -> None:
        self.live = frozenset(live)
        self._path = ckpt.path
        graph = graph_of(ckpt)
        root, places = _places(graph)
        try:
            self._session = session(_opened(ckpt, graph, self.live, places), root)
        except FormatError:
            raise
        except Exception as error:  # the runtime's own kinds have no common base
            raise FormatError(f"{ckpt.path}: onnxruntime cannot load it: {_short(error)}") from error
        self._binding = self._session.io_binding()

    def run(self, given: Mapping[str, np.ndarray], live: Mapping[str, Tensor], output: str) -> np.ndarray:
        """One output, an array.

        Args:
            given: all other inputs.
            live: what moves, contiguous; read where it lies.

        Raises:
            FormatError: onnxruntime cannot run it.
        """
        import onnxruntime as ort

        bind = self._binding
        try:
            bind.clear_binding_inputs()
            for name, value in given.items():
                bind.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
            for name, tensor in live.items():
                kind = np.float32 if tensor.is_floating_point() else np.uint8
                bind.bind_input(name, "cpu", 0, kind, tuple(tensor.shape), tensor.data_ptr())
            bind.bind_output(output, "cpu")
            self._session.run_with_iobinding(bind)
            array: np.ndarray = bind.get_outputs()[0].numpy()
            return array
        except Exception as error:  # the runtime's own kinds have no common base
            raise FormatError(f"{self._path}: onnxruntime cannot run it: {_short(error)}") from error
        finally:
            bind.clear_binding_outputs()


def _places(graph: Graph) -> tuple[Path, dict[str, str]]:
    """A folder with the model and all its data in or below it, and the place of each there, by the model's name of it.

    The runtime refuses links that lead out of that folder, and a hub's snapshot is such links.
    """
    names = {graph.path.name, *(one.file for one in graph.initialisers.values() if one.file)}
    real = {name: (graph.path.parent / name).resolve() for name in names}
    root = Path(os.path.commonpath([file.parent for file in real.values()]))
    return root, {name: file.relative_to(root).as_posix() for name, file in real.items()}


def _opened(ckpt: Checkpoint, graph: Graph, live: Collection[str], places: Mapping[str, str]) -> bytes:
    """The model with what moves as inputs, floats in float32; its large tensors are left in the file they lie in."""
    import onnx

    kept, mapped = _initialisers(ckpt, graph, live)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(graph.lean([tensor.span for tensor in kept]))
    except Exception as error:
        raise FormatError(f"{ckpt.path}: expected an ONNX model, found {_short(error)}") from error
    _point_to_files(model, mapped, places, graph.path.name)
    _add_inputs(model, ckpt, graph, live)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.extend(_rewritten(ckpt, node, live))
    return bytes(model.SerializeToString())


def _initialisers(ckpt: Checkpoint, graph: Graph, live: Collection[str]) -> tuple[list[Initialiser], list[Initialiser]]:
    """The initialisers to keep in the model itself, and those to map from its file; neither holds what moves."""
    kept: list[Initialiser] = []
    mapped: list[Initialiser] = []
    for name, tensor in graph.initialisers.items():
        if name in live:
            continue
        info = ckpt.info.get(name)
        # The runtime maps the file: numbers must lie where numbers of their size may.
        aligned = info is not None and tensor.start % info.dtype.itemsize == 0
        large = info is not None and not tensor.file and info.nbytes >= _INLINE_BYTES
        (mapped if large and aligned else kept).append(tensor)
    return kept, mapped


def _point_to_files(model: onnx.ModelProto, mapped: Sequence[Initialiser], places: Mapping[str, str], own: str) -> None:
    """Name the files that tensors lie in below the session's folder; ``own`` is the model's file."""
    from onnx import TensorProto

    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = places.get(entry.value, entry.value) if entry.key == "location" else entry.value
    for large in mapped:
        tensor = model.graph.initializer.add(name=large.name, data_type=large.kind, dims=large.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", places[own]), ("offset", large.start), ("length", large.nbytes)):
            tensor.external_data.add(key=key, value=str(value))


def _add_inputs(model: onnx.ModelProto, ckpt: Checkpoint, graph: Graph, live: Collection[str]) -> None:
    """Make what moves inputs of the model; old files list all initialisers among the inputs."""
    from onnx import TensorProto, helper

    inputs = [value for value in model.graph.input if value.name not in graph.initialisers]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for name in sorted(live):
        info = ckpt.info[name]
        kind = TensorProto.FLOAT if info.dtype.is_floating_point else TensorProto.UINT8
        model.graph.input.append(helper.make_tensor_value_info(name, kind, list(info.shape)))


def _rewritten(ckpt: Checkpoint, node: onnx.NodeProto, live: Collection[str]) -> Iterator[onnx.NodeProto]:
    """A node as the session runs it: products at accuracy level 0, those with scales in float16 in float32.

    Raises:
        FormatError: another operator than a product reads what moves.
    """
    if node.op_type == "MatMulNBits" and node.domain == "com.microsoft" and len(node.input) > 2:
        for level in [attribute for attribute in node.attribute if attribute.name == "accuracy_level"]:
            node.attribute.remove(level)
        if node.input[2] in live and ckpt.info[node.input[2]].dtype == torch.float16:
            yield from _in_float32(node)
            return
    elif any(name in live for name in node.input):
        raise FormatError(
            f"{ckpt.path}: {node.name!r:.80}: expected what moves to be read by MatMulNBits alone, found {node.op_type}"
        )
    yield node


def _in_float32(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A product of float16 as one of float32 between casts."""
    from onnx import TensorProto, helper

    whole = f"{node.output[0]}/forq"
    for place in (0, 5):
        if len(node.input) > place and node.input[place]:
            yield helper.make_node("Cast", [node.input[place]], [f"{whole}/{place}"], to=TensorProto.FLOAT)
            node.input[place] = f"{whole}/{place}"
    out = node.output[0]
    node.output[0] = whole
    yield node
    yield helper.make_node("Cast", [whole], [out], to=TensorProto.FLOAT16)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
