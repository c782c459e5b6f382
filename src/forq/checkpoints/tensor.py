"""TensorInfo: where the bytes of a tensor lie in its file, and how to read and write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import torch
from torch import Tensor

from forq.errors import FormatError

# A tensor that lies in pieces is read in spans of this size, so that the bytes between the pieces stay out of memory.
SPAN_BYTES = 1 << 20

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

_EIGHT = torch.arange(8, dtype=torch.uint8)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a checkpoint, as its file's header describes it.

    Attributes:
        file: name of the file inside the checkpoint folder.
        start: offset of its first byte in that file.
        nbytes: its length in bytes.
        piece, pitch: the bytes lie in pieces of ``piece`` bytes that start every ``pitch`` bytes (a field
            of the blocks of a GGUF tensor); 0: the bytes are contiguous.
        mask: the bits of a piece that are the tensor's, in order, where another tensor has the others; empty: all.
        order: for a file that stores rows in another order: a function of the number of rows that gives
            the file's row for each row of the tensor, int64 (rows,). None: the same order.
        turned: the file stores the matrix transposed.
        added: a number that the file's values are larger by.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: str
    start: int
    nbytes: int
    piece: int = 0
    pitch: int = 0
    order: Callable[[int], Tensor] | None = None
    mask: bytes = b""
    turned: bool = False
    added: float = 0.0

    @property
    def span(self) -> int:
        """Length of the range of the file that holds the tensor, gaps between pieces included."""
        return self.nbytes if not self.pitch else max(0, (self.nbytes // self._width - 1) * self.pitch + self.piece)

    @property
    def _width(self) -> int:
        """The tensor's own bytes of a piece."""
        return sum(byte.bit_count() for byte in self.mask) // 8 if self.mask else self.piece

    @property
    def by_rows(self) -> bool:
        """Whether its rows lie side by side in the file, each in pieces of its own."""
        own = self._width or self.dtype.itemsize
        plain = bool(self.shape) and self.order is None and not self.turned
        return plain and self.nbytes > 0 and self.nbytes // self.shape[0] % own == 0

    def rows(self, start: int, stop: int) -> TensorInfo:
        """Rows ``start … stop − 1`` of a tensor that lies :attr:`by_rows`, as a tensor of their own."""
        row = self.nbytes // self.shape[0]
        skipped = start * (row // self._width * self.pitch if self.pitch else row)
        shape = (stop - start, *self.shape[1:])
        return replace(self, shape=shape, start=self.start + skipped, nbytes=(stop - start) * row)

    def read(self, stream: BinaryIO) -> Tensor:
        """Read the tensor into new memory.

        Raises:
            FormatError: the file ends before the tensor does.
        """
        return self._meant(self._stored(stream))

    def parts(self, stream: BinaryIO) -> Iterator[Tensor]:
        """Read the tensor in order, flat and in parts of a megabyte; at once if the file stores it in another order.

        Raises:
            FormatError: the file ends before the tensor does.
        """
        if self.order is not None or self.turned or self.added:
            yield self.read(stream).reshape(-1)
        elif self.pitch:
            for _, pieces, _ in self._spans(stream):
                own = _taken(pieces, self.mask) if self.mask else pieces.contiguous()
                yield own.reshape(-1).view(self.dtype)
        else:
            for done in range(0, self.nbytes, SPAN_BYTES):
                raw = self._bytes(stream, self.start + done, min(SPAN_BYTES, self.nbytes - done))
                yield raw.view(self.dtype)

    def write(self, stream: BinaryIO, tensor: Tensor) -> None:
        """Replace the tensor's bytes, and no others, in a file open for reading and writing.

        Where values differ from the file's by ``added``, a value that reads as it did keeps its bytes:
        adding the number again would round them.
        """
        if self.added:
            before = self._stored(stream)
            tensor = torch.where(self._meant(before) == tensor, before, self._shifted(tensor, self.added))
        if self.turned:
            tensor = tensor.t().contiguous()
        if self.order is not None:
            tensor, ordered = torch.empty_like(tensor), tensor
            tensor[self.order(len(tensor))] = ordered
        if not self.pitch:
            stream.seek(self.start)
            stream.write(byte_view(tensor))
            return
        rows = tensor.contiguous().reshape(-1).view(torch.uint8).view(-1, self._width)
        for first, pieces, span in self._spans(stream):
            own = rows[first : first + len(pieces)]
            pieces.copy_(_put(pieces, self.mask, own) if self.mask else own)
            stream.seek(self.start + first * self.pitch)
            stream.write(byte_view(span))

    def _stored(self, stream: BinaryIO) -> Tensor:
        """The values as the file stores them; their shape is the file's too."""
        if self.pitch:
            raw = torch.empty(self.nbytes, dtype=torch.uint8)
            rows = raw.view(-1, self._width)
            for first, pieces, _ in self._spans(stream):
                rows[first : first + len(pieces)] = _taken(pieces, self.mask) if self.mask else pieces
        else:
            raw = self._bytes(stream, self.start, self.nbytes)
        return raw.view(self.dtype).reshape(self.shape[::-1] if self.turned else self.shape)

    def _meant(self, stored: Tensor) -> Tensor:
        """The tensor of stored values."""
        tensor = stored if self.order is None else stored[self.order(len(stored))]
        if self.turned:
            tensor = tensor.t().contiguous()
        return self._shifted(tensor, -self.added) if self.added else tensor

    def _shifted(self, tensor: Tensor, by: float) -> Tensor:
        """The sum in float64, rounded once to the tensor's dtype."""
        return (tensor.double() + by).to(self.dtype)

    def _spans(self, stream: BinaryIO) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Go through the tensor span by span: the number of its first piece, its pieces (n, piece), and its bytes.

        A span is the range of the file from the first byte of some pieces to the last; the pieces are a view of it.
        """
        most, count = max(1, SPAN_BYTES // self.pitch), self.nbytes // self._width
        for first in range(0, count, most):
            n = min(most, count - first)
            start = self.start + first * self.pitch
            span = self._bytes(stream, start, (n - 1) * self.pitch + self.piece)
            yield first, span.as_strided((n, self.piece), (self.pitch, 1)), span

    def _bytes(self, stream: BinaryIO, start: int, nbytes: int) -> Tensor:
        raw = torch.empty(nbytes, dtype=torch.uint8)
        stream.seek(start)
        count = stream.readinto(byte_view(raw)) if nbytes else 0  # type: ignore[attr-defined]
        if count != nbytes:
            raise FormatError(f"expected {nbytes} bytes in {self.file}, found {count}; it was truncated")
        return raw


def _taken(pieces: Tensor, mask: bytes) -> Tensor:
    """The masked bits of pieces, uint8 (n, piece), side by side: uint8 (n, width)."""
    bits = pieces[:, :, None] >> _EIGHT & 1
    kept = bits.flatten(1)[:, _places(mask)]
    return (kept.view(len(pieces), -1, 8) << _EIGHT).sum(2, dtype=torch.uint8)


def _put(pieces: Tensor, mask: bytes, own: Tensor) -> Tensor:
    """Pieces, uint8 (n, piece), with their masked bits replaced by those of ``own``, uint8 (n, width)."""
    bits = (pieces[:, :, None] >> _EIGHT & 1).flatten(1)
    bits[:, _places(mask)] = (own[:, :, None] >> _EIGHT & 1).flatten(1)
    return (bits.view(len(pieces), -1, 8) << _EIGHT).sum(2, dtype=torch.uint8)


def _places(mask: bytes) -> list[int]:
    return [8 * at + bit for at, byte in enumerate(mask) for bit in range(8) if byte >> bit & 1]


def byte_view(tensor: Tensor) -> memoryview:
    """The bytes of a CPU tensor; they share its memory if it is contiguous."""
    flat: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)
