"""Texts from the standard library of the running interpreter, which are new to the demo model.

The demo model was pretrained on ordinary prose. These texts need no download:

* `cards`: an index card for every function: its name, what it takes, what it does. This is the task
  of the demo: the form is strict, and the model learns most of the form in minutes of forward-only tuning.
* `upper_docs`: docstrings in capitals.
* `python_source`: program text without comments and docstrings, which are prose and may have been
  in the pretraining text. They are removed by parsing each file and printing its syntax tree,
  which also makes the layout uniform.

Each file belongs to one of the three splits, chosen by a hash of its path inside the library. So
the same interpreter gives the same texts on any machine, and a longer training text never takes a
file from the held-out splits. Another Python version has other files and gives other texts.

The modules are only read, never executed.
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
"""Folders that are left out: tests, installed packages, and code pages (tables, not programs)."""

PIECE_CHARS = 4_000
"""Length of a piece, in characters. A text takes one piece per file, then a second one, and so on."""

MAX_LINE_CHARS = 300
"""Longer lines are dropped: they are tables of numbers and names."""

MOST_SAID = 120
"""Longest description on a card, in characters; functions with a longer one have no card."""

_IMPLIED = ("self", "cls")

_BUCKETS = 10  # a tenth of the files is for validation, a tenth for the test, the rest for training


class CorpusError(DataError):
    """The source of the standard library is missing, or shorter than the requested text."""


def python_source(n_chars: int, *, held_out_chars: int = 60_000, library: Path | None = None) -> tuple[str, str, str]:
    """Training, validation and test text of Python programs without comments and docstrings.

    Args:
        n_chars: length of the training text, in characters; a full standard library has about
            4,500,000.
        held_out_chars: length of the other two texts, in characters; at most about 350,000 each.
        library: folder to read instead of the running interpreter's standard library.

    Returns:
        Three strings with exactly `n_chars`, `held_out_chars` and `held_out_chars` characters. Each
        consists of pieces of many files, separated by blank lines; the last piece may be cut. No
        file is used for two of them.

    Raises:
        ValueError: a length is not positive.
        CorpusError: there is too little source, for example without the ``.py`` files.
    """
    return _three_texts(program_text, n_chars, held_out_chars, library)


def cards(n_chars: int, *, held_out_chars: int = 20_000, library: Path | None = None) -> tuple[str, str, str]:
    """Training, validation and test text of index cards, one for every function with a docstring.

    A card has three lines and a blank line behind it::

        name: wrap
        takes: text, width
        does: wrap a single paragraph of text

    Arguments, result and errors are the same as for `python_source`. A full standard library has
    about 500,000 characters of training text.
    """
    return _three_texts(_cards, n_chars, held_out_chars, library)


def upper_docs(n_chars: int, *, held_out_chars: int = 20_000, library: Path | None = None) -> tuple[str, str, str]:
    """Training, validation and test text of docstrings in capitals: only the spelling is new.

    The demo model was pretrained on these docstrings in ordinary spelling, so it learns spelling,
    not content. Its tokenizer has few tokens for capitals (about 1.4 characters per token; 3 for
    program text).

    Arguments, result and errors are the same as for `python_source`. A full standard library has
    about 1,400,000 characters of training text.
    """
    return _three_texts(_upper_docstrings, n_chars, held_out_chars, library)


def program_text(source: str) -> str:
    """`source` without comments and docstrings, in the uniform layout of ``ast.unparse``.

    Raises:
        SyntaxError, ValueError: this interpreter cannot parse the source; ValueError for a null byte.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some modules contain escapes that newer parsers warn about
        tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
            if not node.body and not isinstance(node, ast.Module):
                node.body.append(ast.Pass())  # a body that was only a docstring
    return ast.unparse(tree)


def _cards(source: str) -> str:
    """The cards of a module's functions and methods, in the order of the source."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            does = (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ").rstrip(".").strip()
            takes = ", ".join(arg.arg for arg in (*node.args.posonlyargs, *node.args.args) if arg.arg not in _IMPLIED)
            if does and does.isascii() and len(does) <= MOST_SAID:
                found.append(f"name: {node.name}\ntakes: {takes or 'nothing'}\ndoes: {does[0].lower()}{does[1:]}\n")
    return "\n".join(found)


def _upper_docstrings(source: str) -> str:
    """The docstrings of a module in capitals, outermost first, with a blank line between them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n\n".join(text for text in docstrings if text).upper()


def _three_texts(
    extract: Callable[[str], str], n_chars: int, held_out_chars: int, library: Path | None
) -> tuple[str, str, str]:
    """Split the files, then fill the three texts with the output of `extract` for each file."""
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
    """(hash of the path inside `root`, path) of the files, sorted by hash, which mixes the topics."""
    files: list[tuple[str, Path]] = []
    for path in root.rglob("*.py"):
        inside = path.relative_to(root)
        if not SKIPPED_FOLDERS.intersection(inside.parts):
            files.append((hashlib.sha256(inside.as_posix().encode()).hexdigest(), path))
    return sorted(files)


def _pieces(path: Path, extract: Callable[[str], str]) -> Iterator[str]:
    """The output of `extract` for a file, in pieces of complete lines; none if the file is unusable.

    The middle piece comes first, because modules begin with imports and tables of constants.
    """
    try:
        text = extract(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return  # skip the file; UnicodeDecodeError (another encoding) is a ValueError
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
    """The first `n_chars` characters of the pieces, taken in rounds: one piece per file, then the next."""
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
        f"{root}: expected {n_chars} characters for the {split} text, found only {length}; "
        "install the standard library as .py files"
    )
