"""What a safetensors file says it holds, checked against the size of the file before anything is allocated.

Layout of safetensors: 8 bytes little-endian length n, n bytes of JSON, then the tensors end to end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from forq.core import FormatError
from forq.formats.checkpoint import _signature

_LENGTH_BYTES = 8
# The limit the safetensors library itself sets; a corrupt length must not make us read a whole shard as JSON.
_HEADER_LIMIT_BYTES = 100_000_000
_MAX_SIZE = 1 << 48
# Read at once of a tensor that lies in pieces: the bytes between them are never held as a whole.
_SPAN_BYTES = 1 << 20
_MAX_RANK = 16

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a checkpoint, as its file's header describes it.

    Attributes:
        file: name of the file inside the checkpoint folder.
        start: offset of its first byte in that file.
        nbytes: its length in bytes.
        piece, pitch: where the bytes do not lie end to end (a field of the blocks of a GGUF tensor) they lie in pieces
            of so many bytes, each beginning so many after the one before; 0: end to end.
        order: where the file has the rows in an order of its own: from how many there are to int64 (rows,), which of
            the file's each of ours is. They are read in our order, and written back in the file's. None: the same.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: str
    start: int
    nbytes: int
    piece: int = 0
    pitch: int = 0
    order: Callable[[int], Tensor] | None = None

    @property
    def span(self) -> int:
        """Bytes of the file from the first of the tensor to the last."""
        return self.nbytes if not self.pitch else max(0, (self.nbytes // self.piece - 1) * self.pitch + self.piece)

    def read(self, stream: BinaryIO) -> Tensor:
        """The tensor, in memory of its own.

        Raises:
            FormatError: the file ends before it.
        """
        if self.pitch:
            raw = torch.empty(self.nbytes, dtype=torch.uint8)
            for pieces, span, _ in self._spans(stream, raw):
                pieces.copy_(self._pieces(span))
        else:
            raw = self._bytes(stream, self.start, self.nbytes)
        tensor = raw.view(self.dtype).reshape(self.shape)
        return tensor if self.order is None else tensor[self.order(self.shape[0])]

    def write(self, stream: BinaryIO, tensor: Tensor) -> None:
        """Replace the tensor's bytes in a file open for both ways, and no others."""
        if self.order is not None:
            tensor, ours = torch.empty_like(tensor), tensor
            tensor[self.order(self.shape[0])] = ours
        if not self.pitch:
            stream.seek(self.start)
            stream.write(byte_view(tensor))
            return
        for pieces, span, start in self._spans(stream, tensor.contiguous().reshape(-1).view(torch.uint8)):
            self._pieces(span).copy_(pieces)
            stream.seek(start)
            stream.write(byte_view(span))

    def _spans(self, stream: BinaryIO, raw: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Some pieces of a tensor at a time, (n, piece), and the bytes of the file from the first of them to the last.

        The third is where in the file these bytes begin.
        """
        some, count = max(1, _SPAN_BYTES // self.pitch), self.nbytes // self.piece
        for first in range(0, count, some):
            n = min(some, count - first)
            start = self.start + first * self.pitch
            held = self._bytes(stream, start, (n - 1) * self.pitch + self.piece)
            yield raw.view(count, self.piece)[first : first + n], held, start

    def _pieces(self, span: Tensor) -> Tensor:
        """The bytes of a span that are the tensor's, (n, piece): a view."""
        n = (len(span) - self.piece) // self.pitch + 1
        return span.as_strided((n, self.piece), (self.pitch, 1))

    def _bytes(self, stream: BinaryIO, start: int, nbytes: int) -> Tensor:
        raw = torch.empty(nbytes, dtype=torch.uint8)
        stream.seek(start)
        got = stream.readinto(byte_view(raw)) if nbytes else 0  # type: ignore[attr-defined]
        if got != nbytes:
            raise FormatError(f"expected {nbytes} bytes in {self.file}, found {got}; it was truncated")
        return raw


def byte_view(tensor: Tensor) -> memoryview:
    """The bytes of a CPU tensor, shared with it where it is contiguous."""
    flat: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Describe every tensor of one safetensors file.

    Raises:
        FormatError: the file is truncated, its header is not what safetensors prescribes, or the tensors do
            not fill the file exactly.
    """
    size = path.stat().st_size
    header, base = _header(path)
    infos = {name: _describe(path, name, entry, base) for name, entry in header.items() if name != "__metadata__"}
    end = base
    for name, info in sorted(infos.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if info.start != end:
            raise FormatError(
                f"{path}: expected {name} to start at byte {end}, found {info.start}; the header is corrupt"
            )
        end += info.nbytes
    if end != size:
        raise FormatError(
            f"{path}: expected {end} bytes by its header, found {size}; the file is truncated: download it again"
        )
    return infos


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says beside its tensors: text by name.

    Raises:
        FormatError: see :func:`read_header`; or it is not text by name.
    """
    found = _header(path)[0].get("__metadata__", {})
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise FormatError(f"{path}: expected __metadata__ of text by name, found {found!r:.80}")
    return found


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header as it stands, and where the tensors begin."""
    size = path.stat().st_size
    if not size:
        raise FormatError(f"{path}: expected a safetensors file, found an empty one: download it again")
    _signature.check(path, "safetensors")
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, _HEADER_LIMIT_BYTES):
            raise FormatError(
                f"{path}: expected a safetensors header that fits a file of {size} bytes, found one of "
                f"{length} bytes; the file is truncated or is not safetensors: download it again"
            )
        raw = stream.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: expected a JSON header, found {error}; download the file again") from error
    if not isinstance(header, dict):
        raise FormatError(f"{path}: expected a JSON object as header, found {type(header).__name__}")
    return header, _LENGTH_BYTES + length


def _describe(path: Path, name: str, entry: Any, base: int) -> TensorInfo:
    what = f"{path}: {name}"
    if not isinstance(entry, dict):
        raise FormatError(f"{what}: expected dtype, shape and data_offsets, found {entry!r:.80}")
    kind = entry.get("dtype")
    dtype = DTYPES.get(kind) if isinstance(kind, str) else None
    if dtype is None:
        raise FormatError(f"{what}: expected a dtype among {', '.join(DTYPES)}; found {kind!r:.80}")
    shape, offsets = _whole(entry.get("shape")), _whole(entry.get("data_offsets"))
    if shape is None or len(shape) > _MAX_RANK:
        raise FormatError(f"{what}: expected a shape of whole numbers, found {entry.get('shape')!r:.80}")
    if offsets is None or len(offsets) != 2:
        raise FormatError(f"{what}: expected two data offsets, found {entry.get('data_offsets')!r:.80}")
    nbytes = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != nbytes:
        raise FormatError(
            f"{what}: expected {nbytes} bytes for {kind} of shape {shape}, found {offsets[1] - offsets[0]}"
        )
    return TensorInfo(dtype, shape, path.name, base + offsets[0], nbytes)


def _whole(value: Any) -> tuple[int, ...] | None:
    """A list of plausible sizes as a tuple; None where it is anything else."""
    sound = isinstance(value, list) and all(type(item) is int and 0 <= item < _MAX_SIZE for item in value)
    return tuple(value) if sound else None
