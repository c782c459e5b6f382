"""The prose that the demo model is pretrained on, and program text for its tokenizer: pretrain.py says which."""

from __future__ import annotations

import ast
import hashlib
import random
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

SKIPPED_FOLDERS = {"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages", "__pycache__"}


def python_files(root: Path) -> Iterator[Path]:
    """Python files under `root` in a fixed order, without tests and packages installed below it."""
    for path in sorted(root.rglob("*.py")):
        if not SKIPPED_FOLDERS & set(path.relative_to(root).parts):
            yield path


def parse(path: Path) -> ast.Module | None:
    """The syntax tree of a file, or None for one that this interpreter cannot read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
        return None


def prose_paragraphs(docstring: str) -> Iterator[str]:
    """Paragraphs that read as prose: 40 characters or more, over half of them letters, no doctest."""
    for block in re.split(r"\n\s*\n", docstring):
        lines = [line.rstrip() for line in block.splitlines()]
        if any(line.lstrip().startswith((">>>", "...", "```", ".. ")) for line in lines):
            continue
        text = "\n".join(lines).strip("\n")
        if len(text) >= 40 and sum(c.isalpha() for c in text) > 0.5 * len(text):
            yield text


def docstring_documents(root: Path, seen: set[bytes]) -> Iterator[str]:
    """One document per module: its prose paragraphs, each only where it first appears."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in python_files(root):
        tree = parse(path)
        if tree is None:
            continue
        kept: list[str] = []
        for node in ast.walk(tree):
            docstring = ast.get_docstring(node) if isinstance(node, kinds) else None
            for paragraph in prose_paragraphs(docstring or ""):
                digest = hashlib.sha256(" ".join(paragraph.split()).encode()).digest()
                if digest not in seen:
                    seen.add(digest)
                    kept.append(paragraph)
        document = "\n\n".join(kept)
        if len(document) >= 200:
            yield document


def topic_documents() -> Iterator[str]:
    """The language reference shipped with the interpreter, one document per topic, literal blocks removed."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        text = re.sub(r"::\n\n(?:   +.*\n|\s*\n)+", ":\n\n", topics[name] + "\n")
        if len(text) >= 200:
            yield text.strip()


def wikitext_documents(path: Path) -> Iterator[str]:
    """WikiText sections, the spaces of its tokenization undone, sentences with unknown words left out."""
    for section in re.split(r"\n = [^\n]* = \n", path.read_text(encoding="utf-8")):
        kept: list[str] = []
        for line in section.splitlines():
            sentences = [s for s in line.strip().split(" . ") if "<unk>" not in s]
            text = " . ".join(sentences).replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".")
            text = re.sub(r" ([.,;:!?)\]'%])", r"\1", text).replace("( ", "(").replace(' " ', ' "')
            if len(text) >= 80:
                kept.append(text)
        if kept:
            yield "\n\n".join(kept)


def story_documents(path: Path) -> Iterator[str]:
    """TinyStories in documents of about 1,000 characters (the file does not mark where a story ends)."""
    document = ""
    for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
        document += ("\n\n" if document else "") + paragraph.strip()
        if len(document) >= 1000:
            yield document
            document = ""


def prose(data: Path | None) -> dict[str, list[str]]:
    """All documents by source name (about a minute); `data` is the folder of --data, or none."""
    seen: set[bytes] = set()
    paths = sysconfig.get_paths()
    sources = {
        "python-topics": list(topic_documents()),
        "stdlib-docstrings": list(docstring_documents(Path(paths["stdlib"]), seen)),
        "package-docstrings": list(docstring_documents(Path(paths["purelib"]), seen)),
    }
    if data is not None:
        sources["tinystories"] = list(story_documents(data / "tinystories-text" / "tinystories.txt"))
        wiki = data / "wikitext2"
        sources["wikitext2"] = [d for n in ("valid.txt", "test.txt") for d in wikitext_documents(wiki / n)]
    return sources


def program_text(rng: random.Random, n_chars: int) -> list[str]:
    """About `n_chars` characters of standard-library code without comments, for the tokenizer only."""
    files = list(python_files(Path(sysconfig.get_paths()["stdlib"])))
    rng.shuffle(files)
    out: list[str] = []
    for path in files:
        tree = parse(path)
        if tree is not None:
            out.append(ast.unparse(tree)[:60_000])
            n_chars -= len(out[-1])
        if n_chars < 0:
            break
    return out


def is_held_out(document: str) -> bool:
    """One document in fifty, chosen by its content, so that the choice survives a change of order."""
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:4], "big") % 50 == 0
