"""Which outputs of a graph are probabilities: those of a Softmax or a Sigmoid, seen from the nodes alone."""

from __future__ import annotations

from collections.abc import Iterator

from forq.checkpoints.containers.onnx.graph import Graph, Node

_SOFTMAX = ("Softmax", "QLinearSoftmax")
_SIGMOID = ("Sigmoid", "QLinearSigmoid", "HardSigmoid")
_SAME_VALUES = (
    *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout"),
    *("QuantizeLinear", "DequantizeLinear"),
)
"""Operators whose first output has the values of their first input, up to rounding."""
_ROUNDING = ("QuantizeLinear", "DequantizeLinear", "QLinearSoftmax")
_INT16 = (4, 5)
"""Numbers of ONNX for uint16 and int16."""

LEAST = 2.0**-126
"""Smallest normal float32. A smaller probability is 0 on processors that flush subnormal numbers."""
LEAST_OF_8_BITS, LEAST_OF_16_BITS = 2.0**-9, 2.0**-17
"""Half a step of a rounded softmax, whose scale is 1/256 or 1/65536: the largest probability that is rounded to 0."""


def least_of(graph: Graph, output: str) -> float | None:
    """The smallest probability that an output can tell from 0; None if no Softmax computes the output."""
    least = LEAST
    for node in _behind(graph, output):
        if node.op in _ROUNDING:
            kinds = {held.kind for key in node.inputs if (held := graph.initialisers.get(key)) is not None}
            least = max(least, LEAST_OF_16_BITS if kinds & set(_INT16) else LEAST_OF_8_BITS)
        if node.op in _SOFTMAX:
            return least
    return None


def apart_of(graph: Graph, output: str) -> bool:
    """Whether a Sigmoid computes an output, so that each class has a probability of its own."""
    return any(node.op in _SIGMOID for node in _behind(graph, output))


def _behind(graph: Graph, output: str) -> Iterator[Node]:
    """The nodes that an output comes from, last first, up to the first one that changes its values."""
    makers = {name: node for node in graph.nodes for name in node.outputs[:1] if name}
    name = output
    for _ in graph.nodes:  # a damaged graph may have a cycle
        if (node := makers.get(name)) is None:
            return
        yield node
        if node.op not in _SAME_VALUES or not node.inputs:
            return
        name = node.inputs[0]
