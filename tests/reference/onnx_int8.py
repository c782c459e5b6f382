"""Weights behind DequantizeLinear or inside MatMulInteger, in float64 NumPy; read by onnx itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def modules(folder: Path) -> list[str]:
    """Names of the products."""
    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    return sorted(node.name for node in graph.node if node.name.endswith(".MatMul"))


def dequantise(folder: Path, module: str) -> np.ndarray:
    """float64 (out, in) of one product: w = (q − z)·s."""
    graph = onnx.load(str(folder / "model.onnx")).graph
    held = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in graph.initializer}
    front = module.removesuffix(".MatMul")
    (node,) = (n for n in graph.node if f"{front}.codes" in n.input)
    (reader,) = (n for n in graph.node if f"{front}.scales" in n.input)
    assert reader.op_type in ("DequantizeLinear", "Mul")
    axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
    codes, scales = held[f"{front}.codes"], held[f"{front}.scales"]
    zeros = held.get(f"{front}.zeros", np.zeros(()))
    found = np.empty(codes.shape)
    for place in np.ndindex(codes.shape):
        output = place[axis]
        zero = zeros.flat[output % zeros.size]
        found[place] = (codes[place] - zero) * scales.flat[output % scales.size]
    return found if axis == 0 else found.T
