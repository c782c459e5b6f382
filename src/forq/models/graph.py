"""A language model that is an ONNX graph: onnxruntime computes it whole, and its scales are inputs of the graph.

The scales' buffers are bound where they lie, so that a probe repacks nothing and rebuilds no session. Products run at
accuracy level 0 whatever the file asks for: level 4 with scales as an input gives wrong results without an error
(onnxruntime 1.31.1). Scales in float16 are masters in float32 here, so around such a product x and y are cast.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forq.batches import Batch
from forq.core import ConfigError, FormatError
from forq.formats.checkpoint import Checkpoint
from forq.quant.kernels import reference
from forq.quant.layer import LayerSpec
from forq.quant.linear import QuantLinear
from forq.quant.scratch import Scratch
from forq.quant.weight import QuantWeight

_LOGITS_BYTES = 128 << 20
"""Of a forward's logits at most, a single row aside."""
_INLINE_BYTES = 1024
_FLOATS: Mapping[int, Any] = {1: np.float32, 10: np.float16}
_WHOLE: Mapping[int, Any] = {6: np.int32, 7: np.int64}
_GIVEN = ("input_ids", "attention_mask", "position_ids")


class Within:
    """The kernel of a layer that a graph computes. Asked alone, as only tests do, the reference answers."""

    name = "ort"

    def __init__(self, weight: QuantWeight, read: Any, scratch: Scratch) -> None:
        self._read, self._scratch = read, scratch

    def matmul(self, x: Tensor, scales: Tensor) -> Tensor:
        return reference.matmul(x, self._read(), scales, None, self._scratch)


@dataclass(frozen=True, slots=True)
class Input:
    """An input of the graph that is neither tokens nor a scale: keys and values of what came before, here nothing."""

    name: str
    dtype: Any
    shape: tuple[int | str, ...]

    def empty(self, rows: int) -> np.ndarray:
        return np.zeros([rows, *(0 if isinstance(size, str) else size for size in self.shape[1:])], self.dtype)


class GraphLM(nn.Module):
    """A causal language model of token ids to logits.

    What the losses ask of it is :meth:`scored_logits`, and of what writes text :meth:`reader`.

    Attributes:
        checkpoint, file_names, unlike: see :func:`forq.models.load.load`.
        layers: its quantized products; they hold the scales the graph reads, and read codes when asked for them.
    """

    checkpoint: Checkpoint
    file_names: Mapping[str, str]
    unlike: tuple[str, ...]
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, ckpt: Checkpoint, form: ModuleType, specs: Mapping[str, LayerSpec]) -> None:
        super().__init__()
        graph = ckpt.contents.values["graph"]
        self._inputs, self._past = _inputs(ckpt, graph)
        self._logits = _logits(ckpt, graph)
        scratch = Scratch()
        self._places: dict[str, QuantLinear] = {}
        for spec in specs.values():
            read = partial(_still, form, ckpt, spec)
            layer = QuantLinear(form.read(ckpt, spec), spec.live, scratch)
            layer.use(partial(Within, read=read, scratch=scratch), read)  # type: ignore[arg-type]
            self._places[spec.name] = layer
        self.layers = nn.ModuleList(self._places.values())
        shape = graph.outputs[self._logits].shape
        vocabulary = shape[-1] if shape and isinstance(shape[-1], int) else ckpt.config.get("vocab_size")
        limit = ckpt.config.get("max_position_embeddings")
        self.config = SimpleNamespace(
            model_type="onnx",
            vocab_size=vocabulary if type(vocabulary) is int else None,
            max_position_embeddings=limit if type(limit) is int else None,
            _attn_implementation="graph",
        )
        self._session = _session(ckpt, graph, specs)
        self._binding = self._session.io_binding()

    def get_submodule(self, target: str) -> nn.Module:
        """A layer by its node's name, dots and all; or as any module's."""
        return self._places.get(target) or super().get_submodule(target)

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        """Logits, float32 [rows, length, vocabulary], of rows without padding."""
        return SimpleNamespace(logits=self._run(input_ids))

    def scored_logits(self, batch: Batch) -> Iterator[Tensor]:
        """Logits at the places of a batch that are scored, some rows' at a time, in the order of the answers.

        A graph gives those of every place; of so many rows at once that they stay bounded.
        """
        length = batch.input_ids.shape[1]
        some = max(1, _LOGITS_BYTES // (4 * length * (self.config.vocab_size or 1 << 16)))
        for start in range(0, len(batch.input_ids), some):
            here = (batch.row >= start) & (batch.row < start + some)
            if bool(here.any()):
                logits = self._run(batch.input_ids[start : start + some])
                yield logits[batch.row[here] - start, batch.column[here]]

    def reader(self, prompts: Sequence[Sequence[int]]) -> Reader:
        """What gives the logits of the next token of every row."""
        return Reader(self, prompts)

    def _run(self, input_ids: Tensor) -> Tensor:
        import onnxruntime as ort

        rows, length = input_ids.shape
        bind = self._binding
        told = {
            "input_ids": input_ids.numpy(),
            "attention_mask": np.ones((rows, length)),
            "position_ids": np.broadcast_to(np.arange(length), (rows, length)),
        }
        try:
            bind.clear_binding_inputs()
            for name, dtype in self._inputs.items():
                bind.bind_cpu_input(name, np.ascontiguousarray(told[name].astype(dtype)))
            for past in self._past:
                bind.bind_ortvalue_input(past.name, ort.OrtValue.ortvalue_from_numpy(past.empty(rows)))
            for layer in self._places.values():
                scales = layer.scales
                bind.bind_input(layer.leaf_name, "cpu", 0, np.float32, tuple(scales.shape), scales.data_ptr())
            bind.bind_output(self._logits, "cpu")
            self._session.run_with_iobinding(bind)
            logits: Any = bind.get_outputs()[0].numpy()
        except Exception as error:  # the runtime's own kinds have no common base
            raise FormatError(f"{self.checkpoint.path}: onnxruntime cannot run it: {_short(error)}") from error
        finally:
            bind.clear_binding_outputs()
        if logits.ndim != 3 or logits.shape[:2] != (rows, length):
            raise FormatError(
                f"{self.checkpoint.path}: expected logits ({rows}, {length}, vocabulary), found shape {logits.shape}"
            )
        return torch.from_numpy(logits).float()


class Reader:
    """Rows that grow: each is read whole again for its next token, since the graph's cache is not used.

    Padded on the right, where no place looks that counts.
    """

    def __init__(self, model: GraphLM, prompts: Sequence[Sequence[int]]) -> None:
        self._model, self._rows = model, [list(prompt) for prompt in prompts]

    def __call__(self, tokens: Sequence[int] | None) -> Tensor:
        """Logits [rows, vocabulary] after one more token of each row, if there is one."""
        for row, token in zip(self._rows, tokens or (), strict=False):
            row.append(token)
        longest = max(map(len, self._rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in self._rows])
        ends = torch.tensor([len(row) for row in self._rows])
        logits: Tensor = self._model(ids).logits
        return logits[torch.arange(len(ends)), ends - 1]


def _still(form: ModuleType, ckpt: Checkpoint, spec: LayerSpec) -> QuantWeight:
    weight: QuantWeight = form.read(ckpt, spec).weight
    return weight


def _inputs(ckpt: Checkpoint, graph: Any) -> tuple[dict[str, Any], tuple[Input, ...]]:
    """The inputs that are tokens and what belongs to them, by dtype; and those that are keys and values."""
    tokens: dict[str, Any] = {}
    past = []
    for name, value in graph.inputs.items():
        if name in graph.initialisers:  # files of old list those among the inputs
            continue
        if name in _GIVEN and value.kind in _WHOLE:
            tokens[name] = _WHOLE[value.kind]
        elif name.startswith("past_key_values.") and value.kind in _FLOATS and value.shape and len(value.shape) > 2:
            if any(isinstance(size, int) and not 0 < size < 1 << 20 for size in value.shape):
                raise FormatError(f"{ckpt.path}: {name}: expected a shape that can be, found {value.shape}")
            past.append(Input(name, _FLOATS[value.kind], value.shape))
        else:
            raise FormatError(
                f"{ckpt.path}: expected a causal language model of {', '.join(_GIVEN)} and past_key_values, found the "
                f"input {name!r:.80}; export the decoder alone, with or without its cache"
            )
    if "input_ids" not in tokens:
        raise FormatError(f"{ckpt.path}: expected an input called input_ids, found {', '.join(graph.inputs)!r:.200}")
    return tokens, tuple(past)


def _logits(ckpt: Checkpoint, graph: Any) -> str:
    if "logits" not in graph.outputs or graph.outputs["logits"].kind not in _FLOATS:
        raise FormatError(
            f"{ckpt.path}: expected an output of floats called logits, found {', '.join(graph.outputs)!r:.200}; only "
            "causal language models are tuned"
        )
    return "logits"


def _session(ckpt: Checkpoint, graph: Any, specs: Mapping[str, LayerSpec]) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    root, places = _places(graph)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(root))
    try:
        return ort.InferenceSession(_opened(ckpt, graph, specs, places), options, providers=["CPUExecutionProvider"])
    except FormatError:
        raise
    except Exception as error:  # the runtime's own kinds have no common base
        raise FormatError(f"{ckpt.path}: onnxruntime cannot load it: {_short(error)}") from error


def _places(graph: Any) -> tuple[Path, dict[str, str]]:
    """A folder with the model and all its data in or below it, and the place of each there, by the model's name of it.

    The runtime refuses links that lead out of that folder, and a hub's snapshot is such links.
    """
    names = {graph.path.name, *(one.file for one in graph.initialisers.values() if one.file)}
    real = {name: (graph.path.parent / name).resolve() for name in names}
    root = Path(os.path.commonpath([file.parent for file in real.values()]))
    return root, {name: file.relative_to(root).as_posix() for name, file in real.items()}


def _opened(ckpt: Checkpoint, graph: Any, specs: Mapping[str, LayerSpec], places: Mapping[str, str]) -> bytes:
    """The model with its scales as inputs in float32, its large tensors left in the file they lie in."""
    import onnx
    from onnx import TensorProto, helper

    live = {spec.live[0].name: spec.live[0] for spec in specs.values()}
    kept, mapped = [], []
    for name, one in graph.initialisers.items():
        info = ckpt.info.get(name)
        apart = info is not None and not one.file and info.nbytes >= _INLINE_BYTES
        # The runtime maps the file: numbers must lie where numbers of their size may.
        if apart and info is not None and one.start % info.dtype.itemsize == 0:
            mapped.append(one)
        elif name not in live:
            kept.append(one.span)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(graph.lean(kept))
    except Exception as error:
        raise FormatError(f"{ckpt.path}: expected an ONNX model, found {_short(error)}") from error
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = places.get(entry.value, entry.value) if entry.key == "location" else entry.value
    for one in mapped:
        if one.name not in live:
            tensor = model.graph.initializer.add(name=one.name, data_type=one.kind, dims=one.shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, said in (("location", places[graph.path.name]), ("offset", one.start), ("length", one.nbytes)):
                tensor.external_data.add(key=key, value=str(said))
    inputs = [one for one in model.graph.input if one.name not in graph.initialisers]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for name in live:
        shape = list(ckpt.info[name].shape)
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    before = list(model.graph.node)
    del model.graph.node[:]
    for node in before:
        if node.op_type == "MatMulNBits" and node.domain == "com.microsoft" and len(node.input) > 2:
            levels = [one for one in node.attribute if one.name == "accuracy_level"]
            for level in levels:
                node.attribute.remove(level)
            if node.input[2] in live and live[node.input[2]].dtype == torch.float16:
                model.graph.node.extend(_in_float32(node))
                continue
        elif any(name in live for name in node.input):
            raise FormatError(
                f"{ckpt.path}: {node.name!r:.80}: expected scales that only MatMulNBits reads, found {node.op_type}"
            )
        model.graph.node.append(node)
    return bytes(model.SerializeToString())


def _in_float32(node: Any) -> Iterator[Any]:
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


def refuse(device: torch.device, dtype: torch.dtype | None, kernel: str, activations: str, adapter: object) -> None:
    """Settings that a graph leaves no room for.

    Raises:
        ConfigError: one of them is asked for.
    """
    if device.type != "cpu" or dtype not in (None, torch.float32):
        raise ConfigError(f"an ONNX model is tuned in float32 on a CPU, found {dtype} on {device.type}: --device cpu")
    if kernel == "reference" or activations != "float":
        raise ConfigError("onnxruntime computes an ONNX model whole: leave --kernel and --activations as they are")
    if adapter is not None:
        raise ConfigError("an ONNX model takes no adapter: its graph is fixed")
