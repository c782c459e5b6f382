"""Tensors of a graph that are no weights and can move: float biases of products, and scales of activations."""

from __future__ import annotations

import math

from forq.checkpoints.containers.onnx.graph import Graph
from forq.formats.codecs.onnx_products import FLOAT, Wiring, at, products

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm")
_ROUNDS = ("QuantizeLinear", "DequantizeLinear", "QGemm")


def beside(graph: Graph) -> dict[str, str]:
    """Names of such tensors, and their kinds, ``biases`` or ``activations``."""
    wiring, weights = Wiring(graph), products(graph).values()
    held = {name for p in weights for name in (p.scales, *(bias.scales for bias in p.biases))}
    # A scale that an integer bias is computed with stands still where that bias does.
    held |= {bias.inputs for p in weights if p.still for bias in p.biases}
    found: dict[str, str] = {}
    for name, tensor in graph.initialisers.items():
        if tensor.kind != FLOAT or name in held or name in graph.outputs or name not in wiring.readers:
            continue
        if len(tensor.shape) == 1 and _is_bias(wiring, name):
            found[name] = "biases"
        elif math.prod(tensor.shape) == 1 and _is_of_activations(wiring, name):
            found[name] = "activations"
    return found


def _is_bias(wiring: Wiring, name: str) -> bool:
    """Whether one product adds a tensor, itself or by an Add behind it."""
    readers = wiring.readers[name]
    if len(readers) != 1:
        return False
    (reader,) = readers
    if reader.op in _PRODUCTS:
        return at(reader.inputs, 2) == name and _is_weight(wiring, at(reader.inputs, 1))
    if reader.op == "Reshape" and reader.inputs[0] == name:
        behind = wiring.readers.get(reader.outputs[0], [])
        return len(behind) == 1 and behind[0].op == "Add" and _behind_product(wiring, behind[0].inputs)
    return reader.op == "Add" and _behind_product(wiring, reader.inputs)


def _is_weight(wiring: Wiring, name: str) -> bool:
    maker = wiring.maker.get(name)
    return maker is not None and maker.op == "DequantizeLinear" and maker.inputs[0] in wiring.graph.initialisers


def _behind_product(wiring: Wiring, inputs: tuple[str, ...]) -> bool:
    """Whether a tensor among them is a product of a quantized weight, perhaps scaled."""
    for name in inputs:
        maker = wiring.maker.get(name)
        if maker is None:
            continue
        if maker.op == "MatMul" and _is_weight(wiring, at(maker.inputs, 1)):
            return True
        if maker.op == "Mul" and any(_integer_behind(wiring, one) for one in maker.inputs):
            return True
    return False


def _integer_behind(wiring: Wiring, name: str) -> bool:
    cast = wiring.maker.get(name)
    product = None if cast is None or cast.op != "Cast" else wiring.maker.get(cast.inputs[0])
    return product is not None and product.op in ("ConvInteger", "MatMulInteger")


def _is_of_activations(wiring: Wiring, name: str) -> bool:
    """Whether all readers round activations by a scale."""
    for node in wiring.readers[name]:
        if node.op not in _ROUNDS and not node.op.startswith("QLinear"):
            return False
        if node.op == "DequantizeLinear" and node.inputs[0] in wiring.graph.initialisers:
            return False
    return True
