"""The arrays of an .npz: never unpickled, and read only where a header fits its bytes."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forq.errors import DataError

_MOST_BYTES = 16 << 30
"""Most bytes of an array."""

_UNREADABLE = (ValueError, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError)


class Npz(Mapping[str, NDArray[Any]]):
    """The arrays of an .npz by name; each is read when it is asked for.

    Raises:
        DataError: the file is no .npz; or, when an array is asked for, it is no plain array, has more than 16 GiB, or
            is not as long as its header says.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _opened(path) as file:
            self._entries = {entry.filename.removesuffix(".npy"): entry for entry in file.infolist()}

    def __getitem__(self, name: str) -> NDArray[Any]:
        entry = self._entries[name]
        with _opened(self._path) as file:
            with file.open(entry) as stream:
                version = np.lib.format.read_magic(stream)
                if version not in ((1, 0), (2, 0)):
                    raise ValueError(f"version {version} of an .npy")
                one = version == (1, 0)
                read_header = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
                shape, _, dtype = read_header(stream)
                size = math.prod(shape) * dtype.itemsize
                if dtype.hasobject or size > _MOST_BYTES or stream.tell() + size != entry.file_size:
                    raise DataError(
                        f"{self._path}: {entry.filename}: expected a plain array of at most {_MOST_BYTES:,} bytes, as "
                        f"long as its header says, found {dtype} {list(shape)} in {entry.file_size:,} bytes"
                    )
            with file.open(entry) as stream:
                array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def said(self) -> str:
        """The names, for messages."""
        return ", ".join(self) or "none"


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as file:
            yield file
    except _UNREADABLE as error:
        raise DataError(f"{path}: expected an .npz of plain arrays, found {error}") from error
