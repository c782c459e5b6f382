"""A tiny convolutional classifier, quantized by onnxruntime's own quantizer in each of its forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES, SIDE = 4, 8
FORMS = ("qdq", "qdq-int8", "qdq-tensor", "qdq-uint8", "operators", "dynamic")


def floating(path: Path) -> Path:
    """Conv, Conv, mean and Gemm, all with biases, on float32 [n, 3, 8, 8]."""
    draw = np.random.default_rng(7)
    shapes = {"a": (6, 3, 3, 3), "b": (8, 6, 3, 3), "c": (CLASSES, 8)}
    held = {f"{k}.weight": draw.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape) for k, shape in shapes.items()}
    held |= {f"{name}.bias": draw.normal(0, 0.3, shape[0]) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["images", "a.weight", "a.bias"], ["a"], "a", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["ar"], "ar"),
        helper.make_node("Conv", ["ar", "b.weight", "b.bias"], ["b"], "b", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["b"], ["br"], "br"),
        helper.make_node("GlobalAveragePool", ["br"], ["pooled"], "pooled"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "c.weight", "c.bias"], ["scores"], "c", transB=1),
    ]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in held.items()]
    return save(path, nodes, tensors, ["n", 3, SIDE, SIDE], {"scores": ["n", CLASSES]})


def save(
    path: Path, nodes: list[Any], tensors: list[Any], shape: list[Any], outputs: dict[str, list[Any]],
    *, opset: int = 17, kind: int = TensorProto.FLOAT,
) -> Path:  # fmt: skip
    """A graph of one input called images."""
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()], tensors,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def images(rows: int = 24) -> np.ndarray:
    """Images in 0 … 1 of which the class is the brightest quarter."""
    draw = np.random.default_rng(3)
    x = draw.random((rows, 3, SIDE, SIDE)).astype(np.float32) * 0.6
    half = SIDE // 2
    for row in range(rows):
        down, across = divmod(row % CLASSES, 2)
        x[row, :, down * half : (down + 1) * half, across * half : (across + 1) * half] += 0.4
    return x


def quantized(folder: Path, form: str) -> Path:
    """The classifier in a form of :data:`FORMS`."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.parts = iter([{"images": images()}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.parts, None)

    source, target = floating(folder / "float.onnx"), folder / form / "model.onnx"
    target.parent.mkdir(parents=True)
    if form == "dynamic":
        quantize_dynamic(str(source), str(target), weight_type=QuantType.QUInt8)
    else:
        quantize_static(
            str(source), str(target), Reader(),
            quant_format=QuantFormat.QOperator if form == "operators" else QuantFormat.QDQ,
            per_channel=form != "qdq-tensor",
            weight_type=QuantType.QUInt8 if form == "qdq-uint8" else QuantType.QInt8,
            activation_type=QuantType.QInt8 if form == "qdq-int8" else QuantType.QUInt8,
        )  # fmt: skip
    source.unlink()
    return target


def run(path: Path, x: np.ndarray, *, plain: bool = True) -> np.ndarray:
    """The first output in a session of onnxruntime; ``plain`` as every program makes it, else nothing is fused."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"images": x})[0]
    return found


def initialisers(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}
