"""Changes of domain that are on every machine: texts out of the running interpreter's own standard
library.

The demo model was pretrained on ordinary prose. Two texts need no download and are new to it:

* `upper_docs`: docstrings in capitals, the demo's task. Forward-only tuning gains visibly within minutes;
* `python_source`: program text. Comments and docstrings are prose and may have been in the pretraining
  text, so both are removed, by parsing each file and printing its syntax tree; that also makes the layout
  uniform.

Files, not lines, are what the three splits divide: which split a file belongs to follows from a hash of
its path inside the library, so the same interpreter gives the same texts on any machine, and a longer
training text never takes a file from the held-out ones. Another Python version has other files and gives
other text.

None of the modules that are read is executed.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from forq.errors import DataError

SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings"}
)
"""Folders left out wherever they stand: tests, installed packages, and code pages (tables, not programs)."""

PIECE_CHARS = 4_000
"""A text takes a piece of about this many characters from every file before a second one from any."""

MAX_LINE_CHARS = 300
"""Longer lines are tables of numbers and names written out by the printer; they are dropped."""

_BUCKETS = 10  # files by tenths: one tenth for validation, one for the test, eight for training


class CorpusError(DataError):
    """The standard library is not there as readable source, or holds less text than was asked for."""


def python_source(n_chars: int, *, held_out_chars: int = 60_000, library: Path | None = None) -> tuple[str, str, str]:
    """Training, validation and test text of Python programs without comments and docstrings.

    Args:
        n_chars: length of the training text, in characters; a full standard library has about 4,500,000.
        held_out_chars: length of each of the other two texts, in characters (at most about 350,000).
        library: folder to read instead of the running interpreter's standard library.

    Returns:
        Three strings of exactly `n_chars`, `held_out_chars` and `held_out_chars` characters. No file is in
        two of them. Each is made of pieces of many files, separated by a blank line; the last may be cut.

    Raises:
        ValueError: a length is not positive.
        CorpusError: too little source was found, as with an interpreter shipped without its ``.py`` files.
    """
    return _three_texts(program_text, n_chars, held_out_chars, library)


def upper_docs(n_chars: int, *, held_out_chars: int = 20_000, library: Path | None = None) -> tuple[str, str, str]:
    """Training, validation and test text of docstrings in capitals: a change of spelling alone.

    The demo model has read these very docstrings in ordinary writing, so what it learns is spelling, not
    content; its tokenizer has few entries for capitals (about 1.4 characters per token, 3 for program text).

    Arguments, result and errors are those of `python_source`; a full standard library has about 1,400,000
    characters of training text.
    """
    return _three_texts(_upper_docstrings, n_chars, held_out_chars, library)


def program_text(source: str) -> str:
    """`source` without comments and docstrings, printed in the interpreter's own uniform layout.

    Raises SyntaxError (or ValueError, for a null byte) where this interpreter cannot parse it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some modules hold escapes that newer parsers warn about
        tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
            if not node.body and not isinstance(node, ast.Module):
                node.body.append(ast.Pass())  # a body that was only a docstring
    return ast.unparse(tree)


def _upper_docstrings(source: str) -> str:
    """The docstrings of a module in capitals, outermost first, with a blank line between them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n\n".join(text for text in found if text).upper()


def _three_texts(
    extract: Callable[[str], str], n_chars: int, held_out_chars: int, library: Path | None
) -> tuple[str, str, str]:
    """Split the files, then fill the three texts with what `extract` makes of each file."""
    if n_chars <= 0 or held_out_chars <= 0:
        raise ValueError(f"lengths must be positive, got n_chars={n_chars}, held_out_chars={held_out_chars}")
    root = library if library is not None else Path(sysconfig.get_paths()["stdlib"])
    validation: list[Path] = []
    test: list[Path] = []
    train: list[Path] = []
    for key, path in _ordered_files(root):
        bucket = int(key[:8], 16) % _BUCKETS
        (validation if bucket == 0 else test if bucket == 1 else train).append(path)
    return (
        _collect([_pieces(path, extract) for path in train], n_chars, root, "training"),
        _collect([_pieces(path, extract) for path in validation], held_out_chars, root, "validation"),
        _collect([_pieces(path, extract) for path in test], held_out_chars, root, "test"),
    )


def _ordered_files(root: Path) -> list[tuple[str, Path]]:
    """(hash of the path inside `root`, path) of the files to use, by hash: a fixed mixture of topics."""
    found: list[tuple[str, Path]] = []
    for path in root.rglob("*.py"):
        inside = path.relative_to(root)
        if not SKIPPED_FOLDERS.intersection(inside.parts):
            found.append((hashlib.sha256(inside.as_posix().encode()).hexdigest(), path))
    return sorted(found)


def _pieces(path: Path, extract: Callable[[str], str]) -> Iterator[str]:
    """What `extract` makes of a file in pieces of whole lines, the middle one first; none if unusable.

    The middle comes first because modules open with imports and tables of constants.
    """
    try:
        text = extract(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return  # UnicodeDecodeError is a ValueError: a file in another encoding is no loss
    pieces: list[str] = []
    piece, length = [""], 0
    for line in text.split("\n"):
        if len(line) > MAX_LINE_CHARS:
            continue
        piece.append(line)
        length += len(line) + 1
        if length >= PIECE_CHARS:
            pieces.append("\n".join(piece))
            piece, length = [""], 0
    if length >= 200 or (length and pieces):
        pieces.append("\n".join(piece))
    middle = len(pieces) // 2
    yield from pieces[middle:] + pieces[:middle]


def _collect(waiting: list[Iterator[str]], n_chars: int, root: Path, split: str) -> str:
    """The first `n_chars` characters of pieces taken in rounds, one from each file in its turn."""
    parts: list[str] = []
    length = 0
    while waiting:
        remaining: list[Iterator[str]] = []
        for pieces in waiting:
            piece = next(pieces, None)
            if piece is None:
                continue
            remaining.append(pieces)
            parts.append(piece)
            length += len(piece) + 1
            if length > n_chars:
                return "\n".join(parts)[1 : n_chars + 1]
        waiting = remaining
    raise CorpusError(
        f"only {length} characters for the {split} text under {root}, {n_chars} wanted; "
        f"is the standard library installed as .py files?"
    )
