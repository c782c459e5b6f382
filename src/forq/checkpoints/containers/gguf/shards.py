"""A model in several GGUF files, as llama.cpp's ``gguf-split`` writes them.

NAME-00001-of-00003.gguf    all values, split.no 0, split.count 3, split.tensors.count, and the first tensors
NAME-00002-of-00003.gguf    split.no 1, the same two counts, and further tensors
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forq.checkpoints.containers.gguf import header as _gguf_header
from forq.checkpoints.containers.gguf.header import Header
from forq.checkpoints.gguf_names import SPLIT, is_projector
from forq.errors import FormatError

_COUNTS = ("split.count", "split.tensors.count")


def projectors(path: Path) -> tuple[str, ...]:
    """Names of such files beside a model."""
    return tuple(sorted(file.name for file in path.parent.glob("*.gguf") if is_projector(file) and file != path))


def files(path: Path, first: Header) -> dict[Path, Header]:
    """The files of a model and their headers, in order; for most models the file alone.

    Args:
        path: the file that is opened.
        first: its header.

    Raises:
        FormatError: the file is not the first of its model, a further file is missing, or two
            contradict each other.
    """
    count = first.values.get("split.count", 0)
    if count in (0, 1):
        return {path: first}
    match, number = SPLIT.fullmatch(path.name), first.values.get("split.no", 0)
    if match is None or int(match[3]) != count:
        raise FormatError(
            f"{path}: expected a name that ends in -00001-of-{count:05}.gguf, since split.count is {count}, found "
            f"another; give the files their old names"
            if type(count) is int and 0 < count < 1 << 16
            else f"{path}: expected a number of files in split.count, found {count!r:.40}"
        )
    if number != 0 or int(match[2]) != 1:
        raise FormatError(
            f"{path}: expected the first of {count} files, found number {int(match[2])}; name "
            f"{match[1]}-00001-of-{match[3]}{match[4]}"
        )
    headers = {path: first}
    for turn in range(1, count):
        part = path.with_name(f"{match[1]}-{turn + 1:05}-of-{match[3]}{match[4]}")
        if not part.is_file():
            raise FormatError(f"{path}: expected {count} files, found no {part.name}; download it into the same folder")
        headers[part] = _gguf_header.read(part)
        _check_part(part, headers[part], turn, first)
    _check_total(path, first, sum(len(header.tensors) for header in headers.values()))
    return headers


def shapes(headers: Mapping[Path, Header]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of all files, by their names."""
    return {tensor.name: tensor.shape for header in headers.values() for tensor in header.tensors}


def _check_part(path: Path, header: Header, turn: int, first: Header) -> None:
    if (number := header.values.get("split.no")) != turn:
        raise FormatError(
            f"{path}: expected split.no {turn}, found {number!r:.40}; the file is another's: copy it again"
        )
    for name in _COUNTS:
        wanted, actual = first.values.get(name), header.values.get(name)
        if actual != wanted:
            raise FormatError(
                f"{path}: expected {name} {wanted!r:.40} as in the first file, found {actual!r:.40}; the files are of "
                "different models: download them again"
            )


def _check_total(path: Path, first: Header, count: int) -> None:
    total = first.values.get("split.tensors.count", count)
    if total != count:
        raise FormatError(
            f"{path}: expected {total!r:.40} tensors by split.tensors.count, found {count} in all files; download them "
            "again"
        )
