"""The graph of an ONNX file: nodes, inputs, outputs, and where its initialisers lie.

The values of initialisers are not read. Field numbers are those of onnx.proto (ModelProto, GraphProto,
NodeProto, TensorProto).
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forq.checkpoints import signature as _signature
from forq.checkpoints.containers.onnx.protobuf import BYTES, VARINT, Field, fields, length_prefix, text, varints
from forq.errors import FormatError

_GRAPH = 7
_NODE, _INITIALISER, _INPUT, _OUTPUT, _SPARSE = 1, 5, 11, 12, 15
_MAX_RANK, _MAX_SIZE = 16, 1 << 48


@dataclass(frozen=True, slots=True)
class Node:
    """An operator: its type, the names of its inputs and outputs, and its integer attributes."""

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ints: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output: the number of its element type, and its shape.

    An open size has a name in place of a number. The shape is None if the file gives none.
    """

    kind: int
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, slots=True)
class Initialiser:
    """A tensor of the graph.

    Attributes:
        kind: number of its element type.
        start, nbytes: offset and length of its values in the file; ``nbytes`` −1: they are not contiguous,
            or the length is not given.
        file: name of the external data file; "": the values lie in the graph's own file.
        span: start and end of its message in the graph's file, for copying it.
    """

    name: str
    kind: int
    shape: tuple[int, ...]
    start: int
    nbytes: int
    file: str
    span: tuple[int, int]


@dataclass(slots=True, eq=False)
class Graph:
    """A parsed ONNX file. ``outside`` and ``inside`` are the fields of ModelProto and GraphProto to copy, as spans."""

    path: Path
    nodes: list[Node] = field(default_factory=list)
    inputs: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    initialisers: dict[str, Initialiser] = field(default_factory=dict)
    outside: list[tuple[int, int]] = field(default_factory=list)
    inside: list[tuple[int, int]] = field(default_factory=list)

    def lean(self, kept: list[tuple[int, int]]) -> bytes:
        """The serialized model, with only the initialisers whose spans are in ``kept``."""
        with self.path.open("rb") as stream:

            def take(span: tuple[int, int]) -> bytes:
                stream.seek(span[0])
                return stream.read(span[1] - span[0])

            body = b"".join(map(take, self.inside))
            for span in kept:
                body += length_prefix(_INITIALISER, span[1] - span[0]) + take(span)
            return b"".join(map(take, self.outside)) + length_prefix(_GRAPH, len(body)) + body


def read(path: Path) -> Graph:
    """Parse an ONNX file.

    Raises:
        FormatError: the file is no ONNX model, or a length in it exceeds the file.
    """
    size = path.stat().st_size
    if size == 0:
        raise FormatError(f"{path}: expected an ONNX model, found an empty file; download it again")
    _signature.check(path, "ONNX")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        data = memoryview(mapped)
        try:
            return _model(path, data, size)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from None
        finally:
            data.release()


def _model(path: Path, data: memoryview, size: int) -> Graph:
    graph = Graph(path)
    message: Field | None = None
    for part in fields(data, 0, size):
        if part.number == _GRAPH and part.wire == BYTES:
            if message is not None:
                raise FormatError("expected one graph, found two; the file is damaged: download it again")
            message = part
        else:
            graph.outside.append((part.whole, part.stop))
    if message is None:
        raise FormatError("expected an ONNX model, found no graph in it; download it again")
    for part in fields(data, message.start, message.stop):
        if part.number == _INITIALISER and part.wire == BYTES:
            tensor = _initialiser(data, part)
            if tensor.name in graph.initialisers:
                raise FormatError(f"expected initialisers of different names, found {tensor.name!r:.80} twice")
            graph.initialisers[tensor.name] = tensor
            continue
        if part.number == _SPARSE:
            raise FormatError("expected dense initialisers, found a sparse one, which is not supported")
        graph.inside.append((part.whole, part.stop))
        if part.number == _NODE:
            graph.nodes.append(_node(data, part))
        elif part.number in (_INPUT, _OUTPUT):
            name, value = _value(data, part)
            (graph.inputs if part.number == _INPUT else graph.outputs)[name] = value
    return graph


def _children(data: memoryview, outer: Field) -> list[Field]:
    if outer.wire != BYTES:
        raise FormatError(f"byte {outer.whole}: expected a message, found wire type {outer.wire}; the file is damaged")
    return list(fields(data, outer.start, outer.stop))


def _node(data: memoryview, outer: Field) -> Node:
    names: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
    ints: dict[str, int] = {}
    for child in _children(data, outer):
        if child.number in names:
            names[child.number].append(text(data, child))
        elif child.number == 5:
            name, value = "", None
            for attribute in _children(data, child):
                if attribute.number == 1:
                    name = text(data, attribute)
                elif attribute.number == 3 and attribute.wire == VARINT:
                    value = attribute.value - (1 << 64) if attribute.value >> 63 else attribute.value
            if value is not None:
                ints[name] = value
    last = {number: texts[-1] if texts else "" for number, texts in names.items()}
    return Node(last[4], last[7], last[3], tuple(names[1]), tuple(names[2]), ints)


def _value(data: memoryview, outer: Field) -> tuple[str, Value]:
    name, kind, shape = "", 0, None
    for child in _children(data, outer):
        if child.number == 1:
            name = text(data, child)
        for tensor_type in _children(data, child) if child.number == 2 else ():
            for part in _children(data, tensor_type) if tensor_type.number == 1 else ():
                if part.number == 1:
                    kind = part.value
                elif part.number == 2:
                    shape = tuple(_size(data, dim) for dim in _children(data, part) if dim.number == 1)
    return name, Value(kind, shape)


def _size(data: memoryview, outer: Field) -> int | str:
    size: int | str = "?"
    for child in _children(data, outer):
        size = child.value if child.number == 1 else text(data, child) if child.number == 2 else size
    return size


def _initialiser(data: memoryview, outer: Field) -> Initialiser:
    name, kind, external = "", 0, False
    shape: list[int] = []
    entries: dict[str, str] = {}
    contiguous: list[Field] = []
    for child in _children(data, outer):
        if child.number == 1:
            shape += varints(data, child)
        elif child.number == 2:
            kind = child.value
        elif child.number == 8:
            name = text(data, child)
        elif child.number in (4, 9, 10) and child.wire == BYTES:  # floats, raw bytes, doubles
            contiguous.append(child)
        elif child.number == 13:
            pair = {part.number: text(data, part) for part in _children(data, child) if part.number in (1, 2)}
            entries[pair.get(1, "")] = pair.get(2, "")
        elif child.number == 14:
            external = child.value == 1
    if len(shape) > _MAX_RANK or any(size >= _MAX_SIZE for size in shape):
        raise FormatError(f"{name!r:.80}: expected a plausible shape, found {shape}; the file is damaged")
    span = outer.start, outer.stop
    if external:
        start, nbytes = (_number(name, entries.get(key), default) for key, default in (("offset", 0), ("length", -1)))
        return Initialiser(name, kind, tuple(shape), start, nbytes, entries.get("location") or "?", span)
    if len(contiguous) == 1:
        (values,) = contiguous
        return Initialiser(name, kind, tuple(shape), values.start, values.stop - values.start, "", span)
    return Initialiser(name, kind, tuple(shape), 0, -1, "", span)


def _number(name: str, digits: str | None, default: int) -> int:
    if digits is None:
        return default
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise FormatError(f"{name!r:.80}: expected offset and length of external data in bytes, found {digits!r:.40}")
    return int(digits)
