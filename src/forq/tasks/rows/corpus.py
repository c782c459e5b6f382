"""The text files of a folder, by split, and their tokens, a piece at a time."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forq.errors import DataError
from forq.tasks import Split, Tokenizer
from forq.tasks.rows.split_names import plain, require_single, split_of
from forq.tasks.rows.unread import about, is_text, names, require_read
from forq.tasks.rows.utf8 import advice
from forq.tokens.text import bare

Tokens = NDArray[np.int32]

Reading = Literal[1, 2]
"""The law of a text.

2: as Python and ``datasets`` read it. Lines end with ``\\n``, and a README.md beside ``.txt`` files is about the data.
1: lines end as the file writes them, and a README.md is a text of the folder.
"""

NEWEST: Reading = 2
"""The law of new runs."""

PIECE_BYTES = 256 << 10

SUFFIXES = (".txt", ".md")
_CARD = "readme.md"


def files(data: Path, reading: Reading = NEWEST) -> tuple[dict[Split, list[Path]], tuple[str, ...]]:
    """The files of each split, and the names of files that are not read.

    A text in the folder itself names its split (:mod:`forq.tasks.rows.split_names`), and a sub-folder
    with such a name has the texts of one. Without a training text of such a name, all other texts are
    training text. A split without a file of its own is absent; training text is always present.

    Raises:
        DataError: the file or folder does not exist, has no training text, it is not clear which split a text belongs
            to, or a file beside them may hold text and is not read (:mod:`forq.tasks.rows.unread`).
    """
    if data.is_file():
        return {"train": [data]}, ()
    if not data.is_dir():
        raise DataError(f"{data}: no such file or folder; name a .txt file or a folder of .txt and .md files")
    visible = sorted(
        path
        for path in data.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(data).parts)
    )
    found = [path for path in visible if path.suffix.lower() in SUFFIXES]
    plain = reading > 1 and any(path.suffix.lower() == ".txt" for path in found)
    texts = [path for path in found if not (plain and path.name.casefold() == _CARD)]
    named = _named(data, texts)
    if "train" not in named:
        taken = {path for paths in named.values() for path in paths}
        named["train"] = [path for path in texts if path not in taken]
    if not named["train"]:
        raise DataError(f"{data}: found no training text (train.txt, or .txt and .md files of other names)")
    require_read(filter(is_text, visible), texts)
    taken = {path for paths in named.values() for path in paths}
    others = [path for path in visible if path not in found]
    return named, (*(str(path.relative_to(data)) for path in found if path not in taken), *names(others, data))


def _named(data: Path, texts: list[Path]) -> dict[Split, list[Path]]:
    """The texts whose own name, or whose sub-folder's, names a split."""
    named: dict[Split, list[Path]] = {}
    sources: dict[Split, dict[Path, None]] = {}
    for path in texts:
        top = data / path.relative_to(data).parts[0]
        if split := split_of(top):
            named.setdefault(split, []).append(path)
            sources.setdefault(split, {})[top] = None
    for split, tops in sources.items():
        require_single(split, list(tops))
    # A word such as "test" may be part of a title; it is a split's name where all texts have one.
    loose = next((top for tops in sources.values() for top in tops if not plain(top)), None)
    taken = {path for paths in named.values() for path in paths}
    others = (path for path in texts if path not in taken and not about(path))
    if loose is not None and (other := next(others, None)) is not None:
        raise DataError(
            f"{data}: expected all texts to name their split, as {loose.name} does, found {other.relative_to(data)}; "
            "rename one of the two, or move the texts of a split into a sub-folder train, validation or test"
        )
    return named


def _pieces(path: Path, reading: Reading = NEWEST) -> Iterator[str]:
    """The text of a file in pieces. A piece ends at a line's end, or anywhere if it contains none."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    ends = io.IncrementalNewlineDecoder(None, translate=True) if reading > 1 else None
    carry, offset = "", 0
    try:
        with path.open("rb") as file:
            while block := file.read(PIECE_BYTES):
                pending = len(decoder.getstate()[0])
                if (zero := block.find(b"\0")) >= 0:
                    raise DataError(f"{path}: a zero byte at byte {offset + zero}; {advice(block)}")
                text = _decoded(decoder, block, path, offset - pending)
                carry += text if ends is None else ends.decode(text)
                offset += len(block)
                end = carry.rfind("\n") + 1 or len(carry)
                yield carry[:end].removeprefix("\ufeff")
                carry = carry[end:]
            text = _decoded(decoder, b"", path, offset - len(decoder.getstate()[0]), final=True)
            carry += text if ends is None else ends.decode(text, final=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    yield carry


def _decoded(decoder: codecs.IncrementalDecoder, block: bytes, path: Path, offset: int, final: bool = False) -> str:
    try:
        return decoder.decode(block, final)
    except UnicodeDecodeError as error:
        place = f"byte {offset + error.start}"
        raise DataError(f"{path}: not UTF-8 at {place} ({error.reason}); {advice(block)}") from error


def tokenised(paths: list[Path], tokenizer: Tokenizer, reading: Reading = NEWEST) -> Tokens:
    """The tokens of the files, one after the other, without added tokens.

    Raises:
        DataError: a file cannot be read or is not UTF-8, or all files are empty.
    """
    pieces = [
        np.array(bare(tokenizer, piece), dtype=np.int32) for path in paths for piece in _pieces(path, reading) if piece
    ]
    if not pieces:
        raise DataError(f"{', '.join(map(str, paths))}: empty at byte 0; expected text")
    return np.concatenate(pieces)
