"""Values of small initialisers, wherever the file keeps them: raw bytes, numbers end to end, or varints."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from forq.checkpoints.containers.onnx.graph import Graph
from forq.checkpoints.containers.onnx.protobuf import BYTES, fields, varints
from forq.errors import FormatError

_RAW, _INT32 = 9, 5
_NUMPY = {2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32}
_MOST = 1 << 20


def integers(graph: Graph, name: str) -> NDArray[np.int64]:
    """The values of an initialiser of integers, in its shape; 4-bit ones too.

    Raises:
        FormatError: there is none, or it has another type, more than a million values, lies outside the
            graph's file, or holds another number of values than its shape says.
    """
    tensor = graph.initialisers.get(name)
    if tensor is None:
        raise FormatError(f"{graph.path}: {name!r:.80}: expected an initialiser of integers, found none of that name")
    count = math.prod(tensor.shape)
    if tensor.kind not in (*_NUMPY, 21, 22) or count > _MOST or tensor.file:
        raise FormatError(
            f"{graph.path}: {name!r:.80}: expected at most {_MOST:,} integers of up to 32 bits inside the graph, found "
            f"{count:,} of type {tensor.kind}" + (f" in {tensor.file}" if tensor.file else "")
        )
    with graph.path.open("rb") as stream:
        stream.seek(tensor.span[0])
        data = memoryview(stream.read(tensor.span[1] - tensor.span[0]))
    found: list[int] = []
    for field in fields(data, 0, len(data)):
        if field.number == _RAW and field.wire == BYTES:
            found += _raw(bytes(data[field.start : field.stop]), tensor.kind, count)
        elif field.number == _INT32:
            found += [_signed(value) for value in varints(data, field)]
    if tensor.kind in (21, 22) and len(found) != count:  # varints hold two codes each
        found = [nibble for byte in found for nibble in _nibbles(byte & 255, tensor.kind)][:count]
    if len(found) != count:
        raise FormatError(f"{graph.path}: {name!r:.80}: expected {count} integers, found {len(found)}; it is damaged")
    return np.array(found, np.int64).reshape(tensor.shape)


def _raw(data: bytes, kind: int, count: int) -> list[int]:
    if kind in _NUMPY:
        whole = len(data) // np.dtype(_NUMPY[kind]).itemsize * np.dtype(_NUMPY[kind]).itemsize
        return [int(value) for value in np.frombuffer(data[:whole], np.dtype(_NUMPY[kind]).newbyteorder("<"))]
    return [nibble for byte in data for nibble in _nibbles(byte, kind)][:count]


def _nibbles(byte: int, kind: int) -> tuple[int, int]:
    low, high = byte & 15, byte >> 4
    return (low, high) if kind == 21 else ((low ^ 8) - 8, (high ^ 8) - 8)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
