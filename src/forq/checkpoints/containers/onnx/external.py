"""The files beside an ONNX file that hold some of its tensors (external data), wherever in the file a tensor stands.

:mod:`forq.checkpoints.containers.onnx.graph` knows those of the graph's own initialisers and refuses what a checkpoint
cannot be. ONNX Runtime also reads external data in attributes, in the graphs of If and Loop, and in functions.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from forq.checkpoints.containers.onnx.protobuf import BYTES, Field, fields, text
from forq.errors import FormatError

_WITHIN = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Messages of onnx.proto that can hold a tensor: the number of a field, and the message in it."""

_ENTRY, _PLACE, _EXTERNAL = 13, 14, 1
"""Fields of TensorProto: an entry of ``external_data``, and ``data_location``, which is 1 for external data."""


def files(path: Path) -> tuple[str, ...]:
    """Names of the external data files, as the tensors give them (relative to the file's folder), sorted.

    Raises:
        FormatError: the file is no ONNX model, or a length in it exceeds the file.
    """
    if not path.stat().st_size:
        raise FormatError(f"{path}: expected an ONNX model, found an empty file; download it again")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        data = memoryview(mapped)
        try:
            return tuple(sorted(_names(data)))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from None
        finally:
            data.release()


def _names(data: memoryview) -> set[str]:
    names: set[str] = set()
    # A stack, since graphs may lie in graphs as deep as a file likes.
    left = [("model", 0, len(data))]
    while left:
        message, start, stop = left.pop()
        parts = list(fields(data, start, stop))
        if message == "tensor" and any(part.number == _PLACE and part.value == _EXTERNAL for part in parts):
            names.update(_location(data, part) for part in parts if part.number == _ENTRY and part.wire == BYTES)
        for part in parts:
            if part.wire == BYTES and part.number in _WITHIN[message]:
                left.append((_WITHIN[message][part.number], part.start, part.stop))
    return names - {""}


def _location(data: memoryview, entry: Field) -> str:
    """The file that an entry of ``external_data`` names; "" if the entry says something else."""
    pair = {part.number: text(data, part) for part in fields(data, entry.start, entry.stop) if part.number in (1, 2)}
    return pair.get(2, "") if pair.get(1) == "location" else ""
