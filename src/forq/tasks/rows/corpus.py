"""Tokenise text files, a piece at a time."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forq.errors import DataError
from forq.tasks import Split, Tokenizer
from forq.tasks.rows.utf8 import advice
from forq.tokens.text import bare

Tokens = NDArray[np.int32]

PIECE_BYTES = 256 << 10
NAMES: Mapping[str, Split] = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def files(data: Path) -> tuple[dict[Split, list[Path]], tuple[str, ...]]:
    """The files of each split, and the names of texts that belong to no split.

    A split without a file of its own is absent; training text is always present.

    Raises:
        DataError: the file or folder does not exist, or has no training text.
    """
    if data.is_file():
        return {"train": [data]}, ()
    if not data.is_dir():
        raise DataError(f"{data}: no such file or folder; name a .txt file or a folder of .txt and .md files")
    texts = sorted(
        path
        for path in data.rglob("*")
        if path.suffix in (".txt", ".md")
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(data).parts)
    )
    named: dict[Split, list[Path]] = {}
    for path in texts:
        if path.parent == data and path.stem in NAMES:
            named.setdefault(NAMES[path.stem], []).append(path)
    if "train" not in named:
        taken = {path for paths in named.values() for path in paths}
        named["train"] = [path for path in texts if path not in taken]
    if not named["train"]:
        raise DataError(f"{data}: found no training text (train.txt, or .txt and .md files of other names)")
    taken = {path for paths in named.values() for path in paths}
    return named, tuple(str(path.relative_to(data)) for path in texts if path not in taken)


def _pieces(path: Path) -> Iterator[str]:
    """The text of a file in pieces. A piece ends at a line's end, or anywhere if it contains none."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    carry, offset = "", 0
    try:
        with path.open("rb") as file:
            while block := file.read(PIECE_BYTES):
                pending = len(decoder.getstate()[0])
                if (zero := block.find(b"\0")) >= 0:
                    raise DataError(f"{path}: a zero byte at byte {offset + zero}; {advice(block)}")
                carry += _decoded(decoder, block, path, offset - pending)
                offset += len(block)
                end = carry.rfind("\n") + 1 or len(carry)
                yield carry[:end].removeprefix("\ufeff")
                carry = carry[end:]
            carry += _decoded(decoder, b"", path, offset - len(decoder.getstate()[0]), final=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    yield carry


def _decoded(decoder: codecs.IncrementalDecoder, block: bytes, path: Path, offset: int, final: bool = False) -> str:
    try:
        return decoder.decode(block, final)
    except UnicodeDecodeError as error:
        place = f"byte {offset + error.start}"
        raise DataError(f"{path}: not UTF-8 at {place} ({error.reason}); {advice(block)}") from error


def tokenised(paths: list[Path], tokenizer: Tokenizer) -> Tokens:
    """The tokens of the files, one after the other, without added tokens.

    Raises:
        DataError: a file cannot be read or is not UTF-8, or all files are empty.
    """
    pieces = [np.array(bare(tokenizer, piece), dtype=np.int32) for path in paths for piece in _pieces(path) if piece]
    if not pieces:
        raise DataError(f"{', '.join(map(str, paths))}: empty at byte 0; expected text")
    return np.concatenate(pieces)
