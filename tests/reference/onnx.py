"""MatMulNBits from an ONNX file, in float64 NumPy, each code cut out of its byte on its own; read by onnx itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def modules(folder: Path) -> list[str]:
    """Names of the nodes."""
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    return sorted(node.name for node in graph.node if node.op_type == "MatMulNBits")


def dequantise(folder: Path, module: str) -> np.ndarray:
    """float64 (out, in) of one node: w = (q − z)·s."""
    graph = onnx.load(str(folder / "model.onnx")).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (node,) = (node for node in graph.node if node.name == module)
    said = {one.name: one.i for one in node.attribute}
    rows, columns, bits, size = said["N"], said["K"], said["bits"], said["block_size"]
    codes, scales, *zeros = (tensors[name] for name in node.input[1:])
    groups = -(-columns // size)
    codes = codes.reshape(rows, -1)
    scales = scales.astype(np.float64).reshape(rows, groups)

    def cut(packed: np.ndarray, place: int) -> np.ndarray:
        return packed[:, place * bits // 8].astype(np.int64) >> place * bits % 8 & (1 << bits) - 1

    found = np.empty((rows, columns))
    for column in range(columns):
        group = column // size
        zero = cut(zeros[0].reshape(rows, -1), group) if zeros else 1 << bits - 1
        found[:, column] = (cut(codes, column) - zero) * scales[:, group]
    return found
