"""onnxruntime's session for a graph in tuning: tensors that move are inputs instead of constants.

These tensors are bound in place, so that a probe needs no new session. Products run at accuracy
level 0, whatever the file asks for: level 4 with scales as an input gives wrong results without an
error (onnxruntime 1.31.1). Masters of float16 scales are float32, so inputs and outputs of such a
product are cast.
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
from forq.checkpoints.containers.onnx import NIBBLES
from forq.checkpoints.containers.onnx.graph import Graph, Initialiser
from forq.errors import FormatError
from forq.layers.kernels.ort import session
from forq.models.graph.inputs import graph_of

if TYPE_CHECKING:
    import onnx
    from onnxruntime import InferenceSession

_INLINE_BYTES = 1024
_FLOATS = (1, 10, 11, 16)


class Session:
    """A graph, ready to run.

    Args:
        ckpt: an ONNX model.
        live: names of the initialisers that become inputs; floats in float32, integers in the
            file's dtype.

    Raises:
        FormatError: onnxruntime cannot load the graph, or an operator other than a product reads a
            tensor that moves.
    """

    def __init__(self, ckpt: Checkpoint, live: Collection[str]) -> None:
        self.live = frozenset(live)
        self._path, self._graph = ckpt.path, graph_of(ckpt)
        self._session = self._made(ckpt)
        self._binding = self._session.io_binding()

    def _made(self, ckpt: Checkpoint) -> InferenceSession:
        root, places = _places(self._graph)
        try:
            return session(_opened(ckpt, self._graph, self.live, places), root)
        except FormatError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise FormatError(f"{ckpt.path}: onnxruntime cannot load it: {short(error)}") from error

    def run(self, given: Mapping[str, np.ndarray], live: Mapping[str, Tensor], output: str) -> np.ndarray:
        """Run the graph and return the output called ``output``.

        Args:
            given: all other inputs.
            live: tensors that move, contiguous; they are read in place. Those that are no inputs of this
                session are left out.

        Raises:
            FormatError: onnxruntime cannot run the graph.
        """
        import onnxruntime as ort

        bind = self._binding
        try:
            bind.clear_binding_inputs()
            for name, value in given.items():
                bind.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
            for name in self.live & set(live):
                kind, shape = _as_input(self._graph.initialisers[name], live[name])
                bind.bind_input(name, "cpu", 0, kind, shape, live[name].data_ptr())
            bind.bind_output(output, "cpu")
            self._session.run_with_iobinding(bind)
            array: np.ndarray = bind.get_outputs()[0].numpy()
            return array
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise FormatError(f"{self._path}: onnxruntime cannot run it: {short(error)}") from error
        finally:
            bind.clear_binding_outputs()


def _places(graph: Graph) -> tuple[Path, dict[str, str]]:
    """A folder that contains the model and all its data files, and their paths in it, by name.

    onnxruntime refuses links that leave this folder, and a hub snapshot consists of such links.
    """
    names = {graph.path.name, *(tensor.file for tensor in graph.initialisers.values() if tensor.file)}
    real = {name: (graph.path.parent / name).resolve() for name in names}
    root = Path(os.path.commonpath([file.parent for file in real.values()]))
    return root, {name: file.relative_to(root).as_posix() for name, file in real.items()}


def written(graph: Graph) -> tuple[str | onnx.ModelProto, Path]:
    """The model as the file has it, and the folder of its external data: its path, or with external data the model
    itself with their places below that folder.
    """
    import onnx

    root, places = _places(graph)
    if len(places) == 1:
        return str(graph.path.resolve()), root
    model = onnx.load(str(graph.path), load_external_data=False)
    _point_to_files(model, (), places, graph.path.name)
    return model, root


def _opened(ckpt: Checkpoint, graph: Graph, live: Collection[str], places: Mapping[str, str]) -> bytes:
    """The model with moving tensors as float32 or integer inputs; large tensors stay in their files."""
    import onnx

    inline, mapped = _initialisers(ckpt, graph, live)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(graph.lean([tensor.span for tensor in inline]))
    except Exception as error:
        raise FormatError(f"{ckpt.path}: expected an ONNX model, found {short(error)}") from error
    _point_to_files(model, mapped, places, graph.path.name)
    add_inputs(model, graph, live)
    nodes = list(model.graph.node)
    strict = any(node.op_type == "MatMulNBits" for node in nodes)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.extend(_rewritten(ckpt, node, live) if strict else [node])
    return bytes(model.SerializeToString())


def _initialisers(ckpt: Checkpoint, graph: Graph, live: Collection[str]) -> tuple[list[Initialiser], list[Initialiser]]:
    """The constant initialisers to keep in the model itself, and those to map from its file."""
    inline: list[Initialiser] = []
    mapped: list[Initialiser] = []
    for name, tensor in graph.initialisers.items():
        if name in live:
            continue
        info = ckpt.info.get(name)
        # onnxruntime maps the file into memory, so tensors must be aligned to the size of their numbers.
        aligned = info is not None and tensor.start % info.dtype.itemsize == 0
        large = info is not None and not tensor.file and info.nbytes >= _INLINE_BYTES
        (mapped if large and aligned else inline).append(tensor)
    return inline, mapped


def _point_to_files(model: onnx.ModelProto, mapped: Sequence[Initialiser], places: Mapping[str, str], own: str) -> None:
    """Set the paths of tensors' files, relative to the session's folder; ``own`` is the model's file."""
    from onnx import TensorProto

    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = places.get(entry.value, entry.value) if entry.key == "location" else entry.value
    for large in mapped:
        tensor = model.graph.initializer.add(name=large.name, data_type=large.kind, dims=large.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", places[own]), ("offset", large.start), ("length", large.nbytes)):
            tensor.external_data.add(key=key, value=str(value))


def add_inputs(model: onnx.ModelProto, graph: Graph, live: Collection[str]) -> None:
    """Make moving tensors inputs of the model, and remove initialisers, which old files list as inputs."""
    from onnx import TensorProto, helper

    inputs = [value for value in model.graph.input if value.name not in graph.initialisers]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for name in sorted(live):
        tensor = graph.initialisers[name]
        kind = TensorProto.FLOAT if tensor.kind in _FLOATS else tensor.kind
        model.graph.input.append(helper.make_tensor_value_info(name, kind, list(tensor.shape)))


def _rewritten(ckpt: Checkpoint, node: onnx.NodeProto, live: Collection[str]) -> Iterator[onnx.NodeProto]:
    """A node for the session: products at accuracy level 0, and in float32 if their scales are float16.

    Raises:
        FormatError: an operator other than a product reads a tensor that moves.
    """
    if node.op_type == "MatMulNBits" and node.domain == "com.microsoft" and len(node.input) > 2:
        for level in [attribute for attribute in node.attribute if attribute.name == "accuracy_level"]:
            node.attribute.remove(level)
        if node.input[2] in live and ckpt.info[node.input[2]].dtype == torch.float16:
            yield from _in_float32(node)
            return
    elif any(name in live for name in node.input):
        raise FormatError(
            f"{ckpt.path}: {node.name!r:.80}: expected only MatMulNBits to read tensors that move, found {node.op_type}"
        )
    yield node


def _in_float32(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A float16 product, computed in float32 between casts."""
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


def _as_input(initialiser: Initialiser, tensor: Tensor) -> tuple[object, tuple[int, ...]]:
    """Type and shape of a tensor that moves, as onnxruntime binds it: floats in float32, integers as in the file."""
    if initialiser.kind in NIBBLES:
        return initialiser.kind, initialiser.shape
    return np.float32 if tensor.is_floating_point() else tensor.numpy().dtype.type, tuple(tensor.shape)


def short(error: Exception) -> str:
    """The first line of an error of onnxruntime."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
