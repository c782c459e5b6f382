"""The quantized weights of an ONNX graph: which initialisers hold codes, scales and zero points, and which biases
depend on them.

Two forms are read. In the QDQ form a DequantizeLinear turns the codes into floats. In the operator form the product
itself takes the codes: QLinearConv, QLinearMatMul, QGemm, ConvInteger, MatMulInteger, and onnxruntime's fusions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from forq.checkpoints.containers.onnx.graph import Graph, Node

CODES: Mapping[int, tuple[int, int]] = {2: (8, 0), 3: (8, -128), 21: (4, 0), 22: (4, -8)}
"""Bits and smallest value of codes, by the number of their type: uint8, int8, uint4, int4."""

FLOAT, INT32 = 1, 6

UNREAD = ("QAttention", "QEmbedLayerNormalization", "DynamicQuantizeLSTM", "QLinearConvTranspose", "QMoE")
"""Operators with quantized weights that forq does not read."""

# Places of the codes, their scales, their zero points, the bias and the scale of the other input.
_OPERATORS: Mapping[str, tuple[int, int, int, int | None, int]] = {
    "QLinearConv": (3, 4, 5, 8, 1),
    "QLinearMatMul": (3, 4, 5, None, 1),
    "QGemm": (3, 4, 5, 6, 1),
    "DynamicQuantizeMatMul": (1, 2, 3, None, 0),
    "MatMulIntegerToFloat": (1, 3, 5, None, 2),
}


@dataclass(frozen=True, slots=True)
class Int32Bias:
    """A bias in integers, whose scale an integer operator takes to be the product of two others.

    Attributes:
        codes: name of the int32 initialiser.
        scales: name of its own scales, which the QDQ form stores; "": the operator form stores none.
        inputs: name of the scale of the product's other input.
    """

    codes: str
    scales: str
    inputs: str


@dataclass(frozen=True, slots=True)
class Product:
    """A quantized weight and the node that reads it.

    Attributes:
        name: of the node, or of the codes where that is not unique.
        op: the operator that computes the product.
        codes, scales, zeros: names of initialisers; zeros may be "".
        axis: axis of the codes along which scales differ; that of the outputs where there is a single scale.
        block: codes along ``axis`` that share a scale, in a weight with scales by block; 0: none.
        biases: biases in integers that depend on the scales.
        still: why nothing of it moves, as a clause; "" if it can.
    """

    name: str
    op: str
    codes: str
    scales: str
    zeros: str
    axis: int
    block: int = 0
    biases: tuple[Int32Bias, ...] = ()
    still: str = ""


class Wiring:
    """Who reads and who makes every tensor of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.readers: dict[str, list[Node]] = {}
        self.maker: dict[str, Node] = {}
        for node in graph.nodes:
            for name in set(node.inputs):
                self.readers.setdefault(name, []).append(node)
            for name in node.outputs:
                self.maker[name] = node

    def alone(self, name: str) -> bool:
        """Whether exactly one node reads a tensor, and the graph does not give it out."""
        return len(self.readers.get(name, ())) == 1 and name not in self.graph.outputs

    def scale_of(self, name: str) -> str:
        """The scale of an activation that a DequantizeLinear with a constant scale makes; else ""."""
        node = self.maker.get(name)
        if node is None or node.op != "DequantizeLinear" or len(node.inputs) < 2:
            return ""
        return node.inputs[1] if self.constant(node.inputs[1], FLOAT) else ""

    def constant(self, name: str, *kinds: int) -> bool:
        """Whether a tensor is an initialiser of one of the types."""
        tensor = self.graph.initialisers.get(name)
        return tensor is not None and tensor.kind in kinds


@lru_cache(maxsize=4)
def products(graph: Graph) -> Mapping[str, Product]:
    """The quantized weights of a graph, by name, in the order of the nodes."""
    wiring = Wiring(graph)
    found = [product for node in graph.nodes for product in _of(wiring, node)]
    often = Counter(product.name for product in found)
    named = [p if p.name and often[p.name] == 1 else replace(p, name=p.codes) for p in found]
    return {product.name: replace(product, still=_still(wiring, product)) for product in named}


def at(inputs: tuple[str, ...], place: int | None) -> str:
    """An input of a node; "" where it is left out."""
    return inputs[place] if place is not None and place < len(inputs) else ""


def _of(wiring: Wiring, node: Node) -> Iterator[Product]:
    if node.op == "DequantizeLinear" and node.domain in ("", "ai.onnx", "com.microsoft"):
        yield from _dequantized(wiring, node)
    elif node.op in _OPERATORS:
        places = _OPERATORS[node.op]
        codes, scales, zeros, bias = (at(node.inputs, place) for place in places[:4])
        if wiring.constant(codes, *CODES) and wiring.constant(scales, FLOAT):
            own = (Int32Bias(bias, "", node.inputs[places[4]]),) if wiring.constant(bias, INT32) else ()
            yield Product(node.name, node.op, codes, scales, zeros, _axis(wiring.graph, node, codes), biases=own)
    elif node.op in ("ConvInteger", "MatMulInteger") and wiring.constant(at(node.inputs, 1), *CODES):
        codes, zeros = node.inputs[1], at(node.inputs, 3)
        axis = _axis(wiring.graph, node, codes)
        yield Product(node.name, node.op, codes, _scales_behind(wiring, node), zeros, axis)


def _dequantized(wiring: Wiring, node: Node) -> Iterator[Product]:
    graph, names = wiring.graph, (at(node.inputs, 0), at(node.inputs, 1), at(node.inputs, 2))
    if not wiring.constant(names[0], *CODES) or len(graph.initialisers[names[0]].shape) < 2:
        return
    weight, readers, turned = node.outputs[0], wiring.readers.get(node.outputs[0], []), False
    while len(readers) == 1 and readers[0].op == "Transpose":
        weight, turned = readers[0].outputs[0], not turned
        readers = wiring.readers.get(weight, [])
    rank, scales = len(graph.initialisers[names[0]].shape), graph.initialisers.get(names[1])
    single = scales is None or math.prod(scales.shape) == 1
    axis = node.ints.get("axis", 1) % rank
    if single and readers:
        axis = _axis(graph, readers[0], names[0])
        axis = rank - 1 - axis if turned else axis
    found = [bias for reader in readers if (bias := _bias(wiring, reader, weight)) is not None]
    name, op = (readers[0].name, readers[0].op) if len(readers) == 1 else (node.name, "DequantizeLinear")
    yield Product(name, op, *names, axis, 0 if single else node.ints.get("block_size", 0), tuple(found))


def _bias(wiring: Wiring, node: Node, weight: str) -> Int32Bias | None:
    """The integer bias of a product in the QDQ form, if an integer operator may take its place."""
    if node.op not in ("Conv", "ConvTranspose", "Gemm") or at(node.inputs, 1) != weight:
        return None
    inputs = wiring.scale_of(node.inputs[0])
    maker = wiring.maker.get(at(node.inputs, 2))
    if not inputs or maker is None or maker.op != "DequantizeLinear" or len(maker.inputs) < 2:
        return None
    if not wiring.constant(maker.inputs[0], INT32) or not wiring.constant(maker.inputs[1], FLOAT):
        return None
    return Int32Bias(maker.inputs[0], maker.inputs[1], inputs)


def _axis(graph: Graph, node: Node, codes: str) -> int:
    """The axis of the outputs in a product's weight."""
    last = len(graph.initialisers[codes].shape) - 1
    if node.op in ("Gemm", "QGemm"):
        return 0 if node.ints.get("transB", 0) else last
    if "MatMul" in node.op:
        return last
    return 1 if node.op == "ConvTranspose" else 0


def _scales_behind(wiring: Wiring, node: Node) -> str:
    """The scale that multiplies an integer product, through a Cast and a Mul; "" if there is none."""
    seen = wiring.readers.get(node.outputs[0], [])
    if len(seen) == 1 and seen[0].op == "Cast":
        made = seen[0].outputs[0]
        seen = wiring.readers.get(made, [])
    else:
        return ""
    if len(seen) != 1 or seen[0].op != "Mul":
        return ""
    (other,) = [name for name in seen[0].inputs if name != made] or [""]
    maker = wiring.maker.get(other)
    names = [other] if maker is None or maker.op != "Mul" else list(maker.inputs)
    return next((name for name in names if wiring.constant(name, FLOAT)), "")


def _still(wiring: Wiring, product: Product) -> str:
    """Why a weight cannot move; "" if it can."""
    if not product.scales or not wiring.constant(product.scales, FLOAT):
        return "its scales are no constant of float32"
    shape = wiring.graph.initialisers[product.codes].shape
    scales = wiring.graph.initialisers[product.scales].shape
    if product.block and (len(shape) != 2 or len(scales) != 2 or shape[product.axis] % product.block):
        return "its scales are by block of a tensor with other than two axes, or blocks do not fill it"
    if any(not wiring.constant(bias.inputs, FLOAT) for bias in product.biases):
        return "the scale of its input, on which its bias depends, is no constant of float32"
    tied = [product.scales, *(name for bias in product.biases for name in (bias.codes, bias.scales) if name)]
    for name in tied:
        if not wiring.alone(name):
            others = sorted({node.op for node in wiring.readers.get(name, [])})
            return f"other nodes share its {name} ({', '.join(others)})"
    return ""
