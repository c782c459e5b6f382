"""The graph of an ONNX file: nodes, inputs, and where its initialisers lie; large ones are never read.

Field numbers are those of onnx.proto (ModelProto, GraphProto, NodeProto, TensorProto).
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
    """One operator: its type, the names it reads and writes, its attributes that are whole numbers."""

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ints: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output: its element type's number, its shape, names where a size is open; None: no shape is said."""

    kind: int
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, slots=True)
class Initialiser:
    """A tensor of the graph.

    Attributes:
        kind: number of its element type.
        start, nbytes: its values, where they lie end to end in a file; ``nbytes`` −1: they do not.
        file: external data: which file, as the graph names it; "": the graph's own.
        span: where its message lies in the graph's file, for copying it as it is.
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
    """What a file says, and how to say it again without its tensors."""

    path: Path
    nodes: list[Node] = field(default_factory=list)
    inputs: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    initialisers: dict[str, Initialiser] = field(default_factory=dict)
    outside: list[tuple[int, int]] = field(default_factory=list)
    inside: list[tuple[int, int]] = field(default_factory=list)

    def lean(self, kept: list[tuple[int, int]]) -> bytes:
        """The model's bytes with no initialiser but those whose messages are kept."""
        with self.path.open("rb") as stream:

            def take(span: tuple[int, int]) -> bytes:
                stream.seek(span[0])
                return stream.read(span[1] - span[0])

            body = b"".join(map(take, self.inside))
            for span in kept:
                body += length_prefix(_INITIALISER, span[1] - span[0]) + take(span)
            return b"".join(map(take, self.outside)) + length_prefix(_GRAPH, len(body)) + body


def read(path: Path) -> Graph:
    """Walk a file.

    Raises:
        FormatError: it is no ONNX model, or says what it cannot hold.
    """
    size = path.stat().st_size
    if size == 0:
        raise FormatError(f"{path}: expected an ONNX model, found an empty file; download it again")
    _signature.check(path, "ONNX")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as held:
        data = memoryview(held)
        try:
            return _model(path, data, size)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from None
        finally:
            data.release()


def _model(path: Path, data: memoryview, size: int) -> Graph:
    graph = Graph(path)
    whole: Field | None = None
    for one in fields(data, 0, size):
        if one.number == _GRAPH and one.wire == BYTES:
            if whole is not None:
                raise FormatError("expected one graph, found two; the file is damaged: download it again")
            whole = one
        else:
            graph.outside.append((one.whole, one.stop))
    if whole is None:
        raise FormatError("expected an ONNX model, found no graph in it; download it again")
    for one in fields(data, whole.start, whole.stop):
        if one.number == _INITIALISER and one.wire == BYTES:
            found = _initialiser(data, one)
            if found.name in graph.initialisers:
                raise FormatError(f"expected initialisers of different names, found {found.name!r:.80} twice")
            graph.initialisers[found.name] = found
            continue
        if one.number == _SPARSE:
            raise FormatError("expected dense initialisers, found a sparse one, which is not supported")
        graph.inside.append((one.whole, one.stop))
        if one.number == _NODE:
            graph.nodes.append(_node(data, one))
        elif one.number in (_INPUT, _OUTPUT):
            name, value = _value(data, one)
            (graph.inputs if one.number == _INPUT else graph.outputs)[name] = value
    return graph


def _inside(data: memoryview, outer: Field) -> list[Field]:
    if outer.wire != BYTES:
        raise FormatError(f"byte {outer.whole}: expected a message, found wire type {outer.wire}; the file is damaged")
    return list(fields(data, outer.start, outer.stop))


def _node(data: memoryview, outer: Field) -> Node:
    names: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
    ints: dict[str, int] = {}
    for one in _inside(data, outer):
        if one.number in names:
            names[one.number].append(text(data, one))
        elif one.number == 5:
            name, value = "", None
            for part in _inside(data, one):
                if part.number == 1:
                    name = text(data, part)
                elif part.number == 3 and part.wire == VARINT:
                    value = part.value - (1 << 64) if part.value >> 63 else part.value
            if value is not None:
                ints[name] = value
    last = {number: found[-1] if found else "" for number, found in names.items()}
    return Node(last[4], last[7], last[3], tuple(names[1]), tuple(names[2]), ints)


def _value(data: memoryview, outer: Field) -> tuple[str, Value]:
    name, kind, shape = "", 0, None
    for one in _inside(data, outer):
        if one.number == 1:
            name = text(data, one)
        for tensor in _inside(data, one) if one.number == 2 else ():
            for part in _inside(data, tensor) if tensor.number == 1 else ():
                if part.number == 1:
                    kind = part.value
                elif part.number == 2:
                    shape = tuple(_size(data, dim) for dim in _inside(data, part) if dim.number == 1)
    return name, Value(kind, shape)


def _size(data: memoryview, outer: Field) -> int | str:
    found: int | str = "?"
    for one in _inside(data, outer):
        found = one.value if one.number == 1 else text(data, one) if one.number == 2 else found
    return found


def _initialiser(data: memoryview, outer: Field) -> Initialiser:
    name, kind, external = "", 0, False
    shape: list[int] = []
    said: dict[str, str] = {}
    held: list[Field] = []
    for one in _inside(data, outer):
        if one.number == 1:
            shape += varints(data, one)
        elif one.number == 2:
            kind = one.value
        elif one.number == 8:
            name = text(data, one)
        elif one.number in (4, 9, 10) and one.wire == BYTES:  # floats, raw bytes, doubles: end to end
            held.append(one)
        elif one.number == 13:
            pair = {part.number: text(data, part) for part in _inside(data, one) if part.number in (1, 2)}
            said[pair.get(1, "")] = pair.get(2, "")
        elif one.number == 14:
            external = one.value == 1
    if len(shape) > _MAX_RANK or any(size >= _MAX_SIZE for size in shape):
        raise FormatError(f"{name!r:.80}: expected a shape that can be, found {shape}; the file is damaged")
    span = outer.start, outer.stop
    if external:
        start, nbytes = (_whole(name, said.get(key), usual) for key, usual in (("offset", 0), ("length", -1)))
        return Initialiser(name, kind, tuple(shape), start, nbytes, said.get("location") or "?", span)
    if len(held) == 1:
        return Initialiser(name, kind, tuple(shape), held[0].start, held[0].stop - held[0].start, "", span)
    return Initialiser(name, kind, tuple(shape), 0, -1, "", span)


def _whole(name: str, said: str | None, usual: int) -> int:
    if said is None:
        return usual
    if not said.isascii() or not said.isdigit() or len(said) > 18:
        raise FormatError(f"{name!r:.80}: expected a place of external data in bytes, found {said!r:.40}")
    return int(said)
