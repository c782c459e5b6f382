"""TensorInfo: where the bytes of one tensor of a checkpoint lie, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from forq.errors import FormatError

# Read at once of a tensor that lies in pieces: the bytes between them are never held as a whole.
_SPAN_BYTES = 1 << 20

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
